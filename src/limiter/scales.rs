//! The dial of each rule: the part of its limits that is in force.
//!
//! An operator turns it, or the controller of adaptive limits; the operator goes first. A decision
//! reads the dial of its rule, which nobody else writes while it stays as it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::{Timestamp, WHOLE};
use crate::limits::{Scale, ScaleKey, ScaleSource};

/// The bits of an end in milliseconds since 1970; the thousandths are above them.
const END_BITS: u32 = 50;
const END: u64 = (1 << END_BITS) - 1;

/// The part of its limits to which a rule is turned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turned {
    /// Thousandths of the limits.
    pub per_mille: u16,
    /// The source of the scale.
    pub source: ScaleSource,
    /// The time at which it ends, in whole milliseconds; none: when it is taken back.
    pub ends_at: Option<Timestamp>,
}

/// The scales of one rule.
#[derive(Debug, Default)]
pub struct Dial {
    operator: AtomicU64,
    controller: AtomicU64,
}

impl Dial {
    /// The part of the limits that is in force; none: all of them. `now` is asked only for a scale
    /// that ends.
    pub fn turned(&self, now: impl Fn() -> Timestamp) -> Option<Turned> {
        let of = |source| {
            let (per_mille, ends_at) = unpacked(self.of(source).load(Ordering::Relaxed), &now)?;
            Some(Turned { per_mille, source, ends_at })
        };
        ScaleSource::ALL.into_iter().find_map(of)
    }

    /// The thousandths of the limits that are in force, and who says so; none: all of them.
    pub fn in_force(&self, now: impl Fn() -> Timestamp) -> Option<(u16, ScaleSource)> {
        self.turned(now).map(|turned| (turned.per_mille, turned.source))
    }

    /// The thousandths of the limits that are in force.
    pub fn per_mille(&self, now: impl Fn() -> Timestamp) -> u16 {
        self.in_force(now).map_or(WHOLE, |(per_mille, _)| per_mille)
    }

    const fn of(&self, source: ScaleSource) -> &AtomicU64 {
        match source {
            ScaleSource::Operator => &self.operator,
            ScaleSource::Controller => &self.controller,
        }
    }

    fn is_at_rest(&self) -> bool {
        ScaleSource::ALL.iter().all(|source| self.of(*source).load(Ordering::Relaxed) == 0)
    }
}

fn packed(scale: &Scale) -> u64 {
    let end = scale.expires_at.map_or(END, |at| (at.as_micros() / 1_000).min(END - 1));
    (u64::from(scale.per_mille) << END_BITS) | end
}

fn unpacked(packed: u64, now: impl Fn() -> Timestamp) -> Option<(u16, Option<Timestamp>)> {
    let per_mille = u16::try_from(packed >> END_BITS).ok().filter(|scale| *scale > 0)?;
    let end = packed & END;
    let is_over = end != END && end <= now().as_micros() / 1_000;
    let ends_at = (end != END).then(|| Timestamp::from_micros(end * 1_000));
    (!is_over).then_some((per_mille, ends_at))
}

/// The rule of a dial: domain and label.
pub type Named = (Arc<str>, Arc<str>);

/// The dials of all rules.
#[derive(Debug, Default)]
pub struct Scales {
    dials: Mutex<HashMap<Named, Arc<Dial>>>,
}

impl Scales {
    /// The dial of a rule, the same in every version of the policies.
    pub fn dial(&self, domain: &Arc<str>, rule: &str) -> Arc<Dial> {
        let named = (Arc::clone(domain), rule.into());
        Arc::clone(self.dials.lock().entry(named).or_default())
    }

    /// Puts a scale in force; none: takes it back. The rule may come later.
    pub fn set(&self, key: &ScaleKey, scale: Option<&Scale>) {
        let scale = scale.filter(|scale| !scale.shadow).map_or(0, packed);
        let dial = self.dial(&key.domain, &key.rule);
        dial.of(key.source).store(scale, Ordering::Relaxed);
    }

    /// The rules that are turned at `now`, in the order of their names.
    pub fn in_force(&self, now: Timestamp) -> Vec<(Named, Turned)> {
        let dials = self.dials.lock();
        let of = |(named, dial): (&Named, &Arc<Dial>)| Some((named.clone(), dial.turned(|| now)?));
        let mut turned: Vec<(Named, Turned)> = dials.iter().filter_map(of).collect();
        turned.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        turned
    }

    /// Drops the dials that no rule has and nobody has turned.
    pub(super) fn drop_unused(&self) {
        self.dials.lock().retain(|_, dial| Arc::strong_count(dial) > 1 || !dial.is_at_rest());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(per_mille: u16, ends: Option<u64>) -> Scale {
        Scale {
            per_mille,
            expires_at: ends.map(|millis| Timestamp::from_micros(millis * 1_000)),
            reason: String::new(),
            shadow: false,
            updated_at: Timestamp::EPOCH,
            revision: 1,
        }
    }

    #[test]
    fn operator_goes_first_and_what_has_ended_is_not_in_force() {
        let scales = Scales::default();
        let key = |source| ScaleKey { source, domain: "d".into(), rule: "r".into() };
        let (by_operator, by_controller) =
            (key(ScaleSource::Operator), key(ScaleSource::Controller));
        let dial = scales.dial(&"d".into(), "r");
        let at = |millis: u64| dial.in_force(|| Timestamp::from_micros(millis * 1_000 + 999));
        assert_eq!(at(5), None);
        scales.set(&by_controller, Some(&scale(300, None)));
        scales.set(&by_operator, Some(&scale(10_000, Some(7))));
        assert_eq!(at(6), Some((10_000, ScaleSource::Operator)));
        let ends_at = |now| Some(scales.in_force(Timestamp::from_micros(now)).first()?.1.ends_at);
        assert_eq!(ends_at(6_999), Some(Some(Timestamp::from_micros(7_000))));
        assert_eq!(ends_at(7_000), Some(None));
        assert_eq!(at(7), Some((300, ScaleSource::Controller)));
        scales.set(&by_controller, Some(&Scale { shadow: true, ..scale(300, None) }));
        assert_eq!(at(7), None);
        scales.set(&by_operator, None);
        assert_eq!(at(6), None);
    }

    #[test]
    fn dials_outlive_the_policies_while_they_are_turned() {
        let scales = Scales::default();
        let key = ScaleKey { source: ScaleSource::Operator, domain: "d".into(), rule: "r".into() };
        scales.set(&key, Some(&scale(500, None)));
        drop(scales.dial(&"d".into(), "other"));
        scales.drop_unused();
        assert_eq!(scales.dials.lock().len(), 1);
        assert_eq!(scales.dial(&"d".into(), "r").per_mille(|| Timestamp::EPOCH), 500);
        scales.set(&key, None);
        scales.drop_unused();
        assert_eq!(scales.dials.lock().len(), 0);
    }
}
