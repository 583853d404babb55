//! The hits that a request costs a limit: those that it asks for, a fixed number, or a sum over
//! kinds that count differently, such as tokens that a model reads and tokens that it writes.

use std::sync::Arc;

use crate::domain::SATURATION;

/// The hits that a request costs a limit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Cost {
    /// Those that it asks for.
    #[default]
    Hits,
    /// So many, whatever it asks for.
    Fixed(u64),
    /// Those that it asks for, each by the weight of its kind.
    Weighted(Arc<Weights>),
}

impl Cost {
    /// The cost of hits of each kind; none: of no kind. At most 2^52 - 1.
    pub fn of<'a>(&self, hits: impl Iterator<Item = (Option<&'a [u8]>, u64)>) -> u64 {
        match self {
            Self::Hits => hits.map(|(_, hits)| hits).fold(0, u64::saturating_add).min(SATURATION),
            Self::Fixed(cost) => *cost,
            Self::Weighted(weights) => weights.sum(hits),
        }
    }
}

/// Weights of kinds, as fractions of one denominator. A kind without one counts once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Weights {
    /// Kinds, and the numerators of their weights.
    kinds: Vec<(Arc<str>, u64)>,
    denominator: u64,
}

impl Weights {
    /// The largest denominator that all weights may have in common.
    pub(super) const MAX_DENOMINATOR: u64 = 1_000;

    /// The weights of kinds; none: they have no denominator in common that is small enough.
    pub(super) fn new(kinds: impl Iterator<Item = (Arc<str>, Weight)> + Clone) -> Option<Self> {
        let common = |all: Option<u64>, (_, weight): (_, Weight)| {
            Some(lcm(all?, weight.denominator)).filter(|all| *all <= Self::MAX_DENOMINATOR)
        };
        let denominator = kinds.clone().fold(Some(1), common)?;
        let scaled = |weight: Weight| weight.numerator * (denominator / weight.denominator);
        let kinds = kinds.map(|(kind, weight)| (kind, scaled(weight))).collect();
        Some(Self { kinds, denominator })
    }

    /// The weighted sum, rounded up once.
    fn sum<'a>(&self, hits: impl Iterator<Item = (Option<&'a [u8]>, u64)>) -> u64 {
        let numerator = |kind: Option<&[u8]>| {
            let mut kinds = self.kinds.iter();
            let known = kinds.find(|(known, _)| kind == Some(known.as_bytes()));
            known.map_or(self.denominator, |(_, numerator)| *numerator)
        };
        let parts = hits.map(|(kind, hits)| u128::from(hits) * u128::from(numerator(kind)));
        let sum = parts.fold(0, u128::saturating_add).div_ceil(self.denominator.into());
        u64::try_from(sum).unwrap_or(SATURATION).min(SATURATION)
    }
}

/// The hits that one of a kind costs: a fraction that is not reduced further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Weight {
    numerator: u64,
    denominator: u64,
}

impl Weight {
    /// The largest weight.
    const MAX: u64 = 1_000_000;

    /// Reads `4`, `0.1` or `1/10`; none: it is no such number, or larger than a million.
    pub(super) fn read(text: &str) -> Option<Self> {
        let whole = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok())?
        };
        let (numerator, denominator) = if let Some((over, under)) = text.split_once('/') {
            (whole(over.trim())?, whole(under.trim())?)
        } else if let Some((before, after)) = text.split_once('.') {
            let denominator = 10_u64.checked_pow(u32::try_from(after.len()).ok()?)?;
            let before = whole(before)?.checked_mul(denominator)?;
            (before.checked_add(whole(after)?)?, denominator)
        } else {
            (whole(text)?, 1)
        };
        if denominator == 0 || numerator / denominator > Self::MAX {
            return None;
        }
        let common = gcd(numerator, denominator);
        Some(Self { numerator: numerator / common, denominator: denominator / common })
    }
}

const fn gcd(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

const fn lcm(one: u64, other: u64) -> u64 {
    (one / gcd(one, other)).saturating_mul(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weighted(kinds: &[(&str, &str)]) -> Option<Cost> {
        let read = kinds.iter().map(|(kind, text)| (Arc::from(*kind), Weight::read(text).unwrap()));
        Weights::new(read).map(|weights| Cost::Weighted(Arc::new(weights)))
    }

    fn cost(cost: &Cost, hits: &[(&str, u64)]) -> u64 {
        let kind = |kind: &'static str| (!kind.is_empty()).then_some(kind.as_bytes());
        cost.of(hits.iter().map(|(name, hits)| {
            let known = ["", "input", "output", "cached", "audio"];
            (kind(known.into_iter().find(|known| known == name).unwrap()), *hits)
        }))
    }

    #[test]
    fn kinds_count_by_their_weights_and_others_once() {
        let model = weighted(&[("input", "1"), ("output", "4"), ("cached", "1/10")]).unwrap();
        assert_eq!(cost(&model, &[("input", 100), ("output", 10), ("cached", 40)]), 144);
        assert_eq!(cost(&model, &[("cached", 1)]), 1, "rounded up");
        assert_eq!(cost(&model, &[("cached", 1), ("cached", 9)]), 1, "once for all");
        assert_eq!(cost(&model, &[("audio", 3), ("", 5)]), 8);
        assert_eq!(cost(&model, &[]), 0);
        assert_eq!(cost(&model, &[("output", u64::MAX)]), SATURATION);
        let free = weighted(&[("cached", "0")]).unwrap();
        assert_eq!(cost(&free, &[("cached", 1_000), ("input", 2)]), 2);
        assert_eq!(cost(&Cost::Hits, &[("input", 7), ("", u64::MAX)]), SATURATION);
        assert_eq!(cost(&Cost::Fixed(3), &[("input", 7)]), 3);
    }

    #[test]
    fn weights_are_whole_decimal_or_fractions() {
        let fraction = |text| {
            Weight::read(text).map(|Weight { numerator, denominator }| (numerator, denominator))
        };
        for (text, expected) in [
            ("4", Some((4, 1))),
            ("0", Some((0, 1))),
            ("0.1", Some((1, 10))),
            ("2.50", Some((5, 2))),
            ("1/10", Some((1, 10))),
            ("6 / 4", Some((3, 2))),
            ("1000000", Some((1_000_000, 1))),
            ("1000001", None),
            ("1/0", None),
            ("-1", None),
            ("1e3", None),
            (".5", None),
            ("1.", None),
            ("", None),
            ("0.00000000000000000001", None),
        ] {
            assert_eq!(fraction(text), expected, "{text}");
        }
        assert!(weighted(&[("a", "1/999"), ("b", "1/7")]).is_none(), "6993 in common");
        assert!(weighted(&[("a", "1/1000"), ("b", "1/8")]).is_some());
    }

    proptest! {
        /// The sum by fractions is the one that exact arithmetic gives, rounded up.
        #[test]
        fn sum_is_exact(
            weights in proptest::collection::vec((0_u64..2_000, 1_u64..11), 1..4),
            hits in proptest::collection::vec((0_usize..4, 0_u64..1 << 30), 0..8),
        ) {
            let name = |i: usize| ["input", "output", "cached", "audio"][i];
            let written: Vec<_> = weights.iter().map(|(n, d)| format!("{n}/{d}")).collect();
            let kinds: Vec<_> =
                written.iter().enumerate().map(|(i, text)| (name(i), text.as_str())).collect();
            prop_assume!(weighted(&kinds).is_some());
            // 2520 is a multiple of every denominator.
            let each = hits.iter().map(|(kind, hits)| {
                let (n, d) = weights.get(*kind).copied().unwrap_or((1, 1));
                u128::from(*hits) * u128::from(n) * (2_520 / u128::from(d))
            });
            let exact = each.sum::<u128>().div_ceil(2_520);
            let hits: Vec<_> = hits.iter().map(|(kind, hits)| (name(*kind), *hits)).collect();
            prop_assert_eq!(u128::from(cost(&weighted(&kinds).unwrap(), &hits)), exact);
        }
    }
}
