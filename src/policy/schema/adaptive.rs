//! The keys of a rule that adapts to its upstream, as written.

use std::time::Duration;

use super::super::report::Report;
use super::{Field, Fields, Given, Kind};
use crate::yaml::{At, Entry};

/// The keys of `adaptive`.
pub(super) const ADAPTIVE: Kind = Kind {
    name: "adaptive",
    keys: &["target", "min", "max", "drain", "shadow"],
    elsewhere: &[(TARGET.keys, "inside \"target\"")],
};

/// The keys of a target.
pub(super) const TARGET: Kind = Kind { name: "a target", keys: &["p95", "errors"], elsewhere: &[] };

/// The terms of a rule that adapts, as written.
pub(in super::super) struct Adaptive {
    pub(in super::super) at: At,
    pub(in super::super) p95: Field<Duration>,
    pub(in super::super) errors: Field<f64>,
    pub(in super::super) min: Field<f64>,
    pub(in super::super) max: Field<f64>,
    pub(in super::super) drain: Field<Duration>,
    pub(in super::super) shadow: Field<bool>,
}

impl Adaptive {
    /// The terms of a descriptor; none: there are none.
    pub(super) fn read(descriptor: &Fields<'_>, report: &mut Report<'_>) -> Option<Given<Self>> {
        let Entry { key_at, value: node, .. } = descriptor.get("adaptive")?;
        let value = Fields::open(node, &ADAPTIVE, report).map(|fields| {
            let target = fields.get("target").map(|entry| &entry.value);
            let target = target.and_then(|node| Fields::open(node, &TARGET, report));
            let (p95, errors) = match &target {
                Some(target) => (target.time("p95", report), target.share("errors", report)),
                None => (Field::ABSENT, Field::ABSENT),
            };
            Self {
                at: node.at,
                p95,
                errors,
                min: fields.share("min", report),
                max: fields.share("max", report),
                drain: fields.time("drain", report),
                shadow: fields.flag("shadow", report),
            }
        });
        Some(Given { key_at: *key_at, at: node.at, value })
    }
}
