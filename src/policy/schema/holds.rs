//! The keys of a limit that reserves, as written.

use std::sync::Arc;
use std::time::Duration;

use super::super::cost::{Cost, Weight, Weights};
use super::super::report::Report;
use super::{Field, Fields, Given, Kind};
use crate::domain::SATURATION;
use crate::yaml::{At, Data, Entry, quote};

/// The keys of a hold.
pub(super) const HOLD: Kind = Kind {
    name: "a hold",
    keys: &["ttl", "estimate", "max_share", "on_unknown", "unnamed"],
    elsewhere: &[(ESTIMATE.keys, "inside \"estimate\"")],
};

/// The keys of an estimate.
pub(super) const ESTIMATE: Kind =
    Kind { name: "an estimate", keys: &["default", "percentile", "min", "max"], elsewhere: &[] };

/// A hold, as written.
pub(in super::super) struct Hold {
    pub(in super::super) at: At,
    pub(in super::super) ttl: Field<Duration>,
    pub(in super::super) default: Field<DefaultEstimate>,
    pub(in super::super) percentile: Field<u64>,
    pub(in super::super) min: Field<u64>,
    pub(in super::super) max: Field<u64>,
    pub(in super::super) max_share: Field<f64>,
    pub(in super::super) on_unknown: Field<OnUnknown>,
    pub(in super::super) unnamed: Field<bool>,
}

/// The estimate for a request that brings none, as written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum DefaultEstimate {
    /// So many hits.
    Hits(u64),
    /// A percentile of what requests have cost.
    Learned,
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

impl Hold {
    /// True if requests hold without a handle.
    pub(in super::super) fn is_unnamed(&self) -> bool {
        self.unnamed.good() == Some(true)
    }

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
            let (percentile, min, max) = (hits("percentile"), hits("min"), hits("max"));
            let default = match &estimate {
                Some(fields) => fields.default_estimate(report),
                None => Field::ABSENT,
            };
            let (ttl, max_share) = (fields.time("ttl", report), fields.share("max_share", report));
            let (on_unknown, unnamed) = (fields.on_unknown(report), fields.flag("unnamed", report));
            let at = node.at;
            Self { at, ttl, default, percentile, min, max, max_share, on_unknown, unnamed }
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

    fn default_estimate(&self, report: &mut Report<'_>) -> Field<DefaultEstimate> {
        let expected = "a whole number of hits, or learned";
        self.read(
            "default",
            report,
            expected,
            |node| match node.text().map(|text| &**text) {
                Some("learned") => Some(DefaultEstimate::Learned),
                _ => node.whole().filter(|hits| *hits <= SATURATION).map(DefaultEstimate::Hits),
            },
            |_| None,
        )
    }

    pub(super) fn cost(&self, report: &mut Report<'_>) -> Field<Cost> {
        if let Some(Entry { key_at, value: node, .. }) = self.get("cost")
            && let Data::Map(kinds) = &node.data
        {
            let value = weights(kinds, node.at, report);
            return Field(Some(Given { key_at: *key_at, at: node.at, value }));
        }
        let expected = "hits, a whole number above 0, or a weight for each kind";
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

/// The weights of kinds as written.
fn weights(written: &[Entry], at: At, report: &mut Report<'_>) -> Option<Cost> {
    if written.is_empty() {
        report.fault(at, "cost has no kinds: {}");
        return None;
    }
    let mut kinds = Vec::new();
    for Entry { key, value: node, .. } in written {
        let Some(weight) = node.text().and_then(|text| Weight::read(text)) else {
            let message = format!("the weight of {} is {}", quote(key), node.describe());
            let hint = "write how many hits one of it counts, such as 4, 0.1 or 1/10".to_owned();
            report.fault_with(node.at, message, hint);
            return None;
        };
        kinds.push((Arc::clone(key), weight));
    }
    let weights = Weights::new(kinds.into_iter());
    if weights.is_none() {
        let most = Weights::MAX_DENOMINATOR;
        let message = format!("the weights have no denominator up to {most} in common");
        report.fault_with(at, message, "round them, such as 1/10 or 0.125".to_owned());
    }
    weights.map(|weights| Cost::Weighted(Arc::new(weights)))
}
