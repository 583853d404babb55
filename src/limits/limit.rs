//! Limits of clients, and their JSON form in the registry.
//!
//! They are kept small, because there may be a million clients: a single limit is stored inline,
//! and optional numbers that are never zero use `NonZero` types.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::{Algorithm, Charge, Limit, LimitError, Unit};
use crate::policy::{AlgorithmName, ChargeName, Defaults, OnStoreFailure};

/// The limits of a client. A single limit needs no allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits(Few);

#[derive(Clone, Debug, PartialEq)]
enum Few {
    One(ClientLimit),
    Other(Box<[ClientLimit]>),
}

impl Limits {
    /// True if there are none.
    pub(super) fn is_none(&self) -> bool {
        self.is_empty()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self(Few::Other(Box::default()))
    }
}

impl Deref for Limits {
    type Target = [ClientLimit];

    fn deref(&self) -> &[ClientLimit] {
        match &self.0 {
            Few::One(limit) => std::slice::from_ref(limit),
            Few::Other(limits) => limits,
        }
    }
}

impl FromIterator<ClientLimit> for Limits {
    fn from_iter<I: IntoIterator<Item = ClientLimit>>(limits: I) -> Self {
        let mut limits: Vec<ClientLimit> = limits.into_iter().collect();
        Self(match limits.pop() {
            Some(only) if limits.is_empty() => Few::One(only),
            last => {
                limits.extend(last);
                Few::Other(limits.into())
            }
        })
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(from)?.into_iter().collect())
    }
}

/// One limit of a client. A field that is `None` is taken from the rule, or from the defaults if no
/// rule sets it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClientLimit {
    /// The name reported with the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// The rate; `None` is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

impl ClientLimit {
    /// Returns true if both may share a counter: they have the same period and the same algorithm,
    /// or one leaves the algorithm open.
    pub fn may_share_counter(&self, other: &Self) -> bool {
        let (Some(one), Some(other)) = (self.rate, other.rate) else { return false };
        let algorithms = one.algorithm.zip(other.algorithm);
        algorithms.is_none_or(|(one, other)| one == other)
            && one.unit.period(one.unit_multiplier) == other.unit.period(other.unit_multiplier)
    }
}

/// The numbers of a limit that is not unlimited.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rate {
    /// Requests per period; 0 blocks.
    pub requests_per_unit: u32,
    /// The unit of the period, by name.
    #[serde(with = "unit_name")]
    pub unit: Unit,
    /// The number of units in the period, at least 1.
    pub unit_multiplier: u32,
    /// The algorithm, by name.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word")]
    pub algorithm: Option<AlgorithmName>,
    /// The burst of a token bucket. `None`: `requests_per_unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
    /// The slots of a sliding window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<NonZeroU32>,
    /// True if hits are charged even when the request is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always: Option<bool>,
    /// True if it settles: hits that descriptors bring along are booked. Goes before `always`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// The maximum debt in hits of a token bucket that charges denied requests. `None`: ten times
    /// the burst if it always charges, otherwise that of the rule or no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_debt: Option<u64>,
    /// The answer while the store fails: allow or deny.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word")]
    pub on_store_failure: Option<OnStoreFailure>,
}

/// The rule that a client's rate overrides, as the source of defaults.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The limit of the rule. `None`: no rule matches, or the rule has no limit.
    pub limit: Option<Limit>,
    /// The rule that applies if none says otherwise.
    pub defaults: Defaults,
}

impl Rate {
    /// Makes the limit, with the missing numbers taken from `model`.
    ///
    /// # Errors
    /// Fails if [`Limit::new`] rejects the numbers.
    pub fn limit(&self, model: &Model) -> Result<Limit, LimitError> {
        let period = self.unit.period(self.unit_multiplier).ok_or(LimitError::Period)?;
        let theirs = model.limit.map(|limit| limit.algorithm());
        if let (None, Some(of_rule)) = (self.algorithm, model.limit.filter(Limit::is_concurrency)) {
            // So many at a time; the rule says for how long a hold lasts.
            let period = of_rule.period();
            return Limit::new(
                self.requests_per_unit,
                period,
                of_rule.algorithm(),
                of_rule.charge(),
            );
        }
        let name = self.algorithm.unwrap_or(match theirs {
            Some(Algorithm::TokenBucket { .. }) => AlgorithmName::TokenBucket,
            Some(Algorithm::SlidingWindow { .. }) => AlgorithmName::SlidingWindow,
            Some(Algorithm::FixedWindow) => AlgorithmName::FixedWindow,
            Some(Algorithm::Concurrency) | None => model.defaults.algorithm,
        });
        let burst = self.burst.map_or(self.requests_per_unit, NonZeroU32::get);
        let algorithm = match name {
            AlgorithmName::TokenBucket => Algorithm::TokenBucket { burst },
            AlgorithmName::FixedWindow => Algorithm::FixedWindow,
            AlgorithmName::SlidingWindow => Algorithm::SlidingWindow {
                slots: self.slots.map_or_else(
                    || match theirs {
                        Some(Algorithm::SlidingWindow { slots }) => slots,
                        _ => Algorithm::DEFAULT_SLOTS,
                    },
                    NonZeroU32::get,
                ),
            },
        };
        let charge = match (self.charge(), model.limit.map(|limit| limit.charge())) {
            (None | Some(ChargeName::Settled), Some(Charge::Settled { max_debt })) => {
                Charge::Settled { max_debt: self.max_debt.or(max_debt) }
            }
            (None, Some(Charge::Held { max_debt })) => {
                Charge::Held { max_debt: self.max_debt.or(max_debt) }
            }
            (Some(name), _) => name.charge(self.max_debt, burst),
            (None, theirs) => {
                let name = theirs.map_or(model.defaults.charge, ChargeName::from);
                name.charge(self.max_debt, burst)
            }
        };
        Limit::new(self.requests_per_unit, period, algorithm, charge)
    }

    /// The charge, by name.
    pub const fn charge(&self) -> Option<ChargeName> {
        match self.always {
            _ if self.settled => Some(ChargeName::Settled),
            None => None,
            Some(false) => Some(ChargeName::Admitted),
            Some(true) => Some(ChargeName::Always),
        }
    }
}

mod unit_name {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::domain::Unit;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(unit: &Unit, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(unit.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Unit, D::Error> {
        let name = String::deserialize(from)?;
        Unit::from_name(&name).ok_or_else(|| D::Error::custom(format!("unknown unit {name:?}")))
    }
}

/// A word that may be left out.
mod word {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::settings::Word;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<T: Word, S: Serializer>(
        word: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match word {
            None => to.serialize_none(),
            Some(word) => to.serialize_str(word.word()),
        }
    }

    pub(super) fn deserialize<'de, T: Word, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let word = String::deserialize(from)?;
        let known = T::from_word(&word).ok_or_else(|| {
            D::Error::custom(format!("unknown word {word:?}, expected {}", T::names().join(", ")))
        });
        known.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: &str = r#"{"requests_per_unit": 6, "unit": "day", "unit_multiplier": 1"#;

    #[test]
    fn charge_is_that_of_the_client_then_of_the_rule_then_of_the_settings() {
        let settled = |max_debt| Charge::Settled { max_debt };
        let always = |debt| Charge::Always { max_debt: Some(debt) };
        let rule = |charge| {
            let algorithm = Algorithm::TokenBucket { burst: 9 };
            Some(Limit::new(9, Unit::Day.period(1).unwrap(), algorithm, charge).unwrap())
        };
        for (written, theirs, default, expected) in [
            ("", None, ChargeName::Admitted, Charge::Admitted),
            ("", None, ChargeName::Settled, settled(None)),
            ("", rule(Charge::Admitted), ChargeName::Settled, Charge::Admitted),
            ("", rule(settled(Some(7))), ChargeName::Admitted, settled(Some(7))),
            ("", rule(always(7)), ChargeName::Admitted, always(60)),
            (
                r#", "settled": true"#,
                rule(settled(Some(7))),
                ChargeName::Admitted,
                settled(Some(7)),
            ),
            (r#", "settled": true"#, rule(always(7)), ChargeName::Admitted, settled(None)),
            (r#", "settled": true, "max_debt": 3"#, None, ChargeName::Admitted, settled(Some(3))),
            (r#", "always": false"#, rule(settled(None)), ChargeName::Settled, Charge::Admitted),
            (r#", "always": true"#, rule(settled(None)), ChargeName::Settled, always(60)),
        ] {
            let rate: Rate = serde_json::from_str(&format!("{RATE}{written}}}")).unwrap();
            let defaults = Defaults {
                algorithm: AlgorithmName::TokenBucket,
                charge: default,
                ..Defaults::default()
            };
            let limit = rate.limit(&Model { limit: theirs, defaults }).unwrap();
            assert_eq!(limit.charge(), expected, "{written} {theirs:?} {default:?}");
            let text = serde_json::to_string(&rate).unwrap();
            assert_eq!(text.contains("settled"), written.contains("settled"));
        }
    }
}
