//! The keys of a limit that reserves, as written.

use std::time::Duration;

use super::super::report::Report;
use super::{Field, Fields, Given, Kind};
use crate::domain::SATURATION;
use crate::yaml::{At, Entry};

/// The keys of a hold.
pub(super) const HOLD: Kind = Kind {
    name: "a hold",
    keys: &["ttl", "estimate", "max_share", "on_unknown"],
    elsewhere: &[(ESTIMATE.keys, "inside \"estimate\"")],
};

/// The keys of an estimate.
pub(super) const ESTIMATE: Kind =
    Kind { name: "an estimate", keys: &["default", "min", "max"], elsewhere: &[] };

/// A hold, as written.
pub(in super::super) struct Hold {
    pub(in super::super) at: At,
    pub(in super::super) ttl: Field<Duration>,
    pub(in super::super) default: Field<u64>,
    pub(in super::super) min: Field<u64>,
    pub(in super::super) max: Field<u64>,
    pub(in super::super) max_share: Field<f64>,
    pub(in super::super) on_unknown: Field<OnUnknown>,
}

/// The cost of a request that ended without saying it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnUnknown {
    /// The estimate.
    Keep,
    /// Nothing.
    Release,
    /// So many hits.
    Cost(u64),
}

/// The hits that a request costs a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Cost {
    /// Those that it asks for.
    #[default]
    Hits,
    /// So many, whatever it asks for.
    Fixed(u64),
}

impl Hold {
    /// The hold of a limit; none: there is none.
    pub(super) fn read(limit: &Fields<'_>, report: &mut Report<'_>) -> Option<Given<Self>> {
        let Entry { key_at, value: node, .. } = limit.get("hold")?;
        let value = Fields::open(node, &HOLD, report).map(|fields| {
            let estimate = fields.get("estimate").map(|entry| &entry.value);
            let estimate = estimate.and_then(|node| Fields::open(node, &ESTIMATE, report));
            let mut hits = |key| match &estimate {
                Some(fields) => fields.whole(key, SATURATION, report),
                None => Field::ABSENT,
            };
            let (default, min, max) = (hits("default"), hits("min"), hits("max"));
            let (ttl, max_share) = (fields.time("ttl", report), fields.share("max_share", report));
            let on_unknown = fields.on_unknown(report);
            Self { at: node.at, ttl, default, min, max, max_share, on_unknown }
        });
        Some(Given { key_at: *key_at, at: node.at, value })
    }
}

impl Fields<'_> {
    fn on_unknown(&self, report: &mut Report<'_>) -> Field<OnUnknown> {
        let expected = "keep, release or a whole number of hits";
        self.read(
            "on_unknown",
            report,
            expected,
            |node| match node.text().map(|text| &**text) {
                Some("keep") => Some(OnUnknown::Keep),
                Some("release") => Some(OnUnknown::Release),
                _ => node.whole().map(OnUnknown::Cost),
            },
            |_| None,
        )
    }

    pub(super) fn cost(&self, report: &mut Report<'_>) -> Field<Cost> {
        let expected = "hits, or a whole number above 0";
        self.read(
            "cost",
            report,
            expected,
            |node| match node.text().map(|text| &**text) {
                Some("hits") => Some(Cost::Hits),
                _ => node.whole().filter(|hits| (1..=SATURATION).contains(hits)).map(Cost::Fixed),
            },
            |_| None,
        )
    }

    /// A part of a whole: `25%` or `0.25`.
    pub(super) fn share(&self, key: &str, report: &mut Report<'_>) -> Field<f64> {
        let expected = "a share such as 25%";
        self.read(
            key,
            report,
            expected,
            |node| {
                let text = node.text()?;
                let share = match text.strip_suffix('%') {
                    Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
                    None => text.parse().ok()?,
                };
                (share > 0.0 && share <= 1.0).then_some(share)
            },
            |_| None,
        )
    }
}
