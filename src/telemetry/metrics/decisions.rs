//! Decisions and their hits, by rule, limit and outcome.
//!
//! A series begins with its first decision: a rule may have many limits, and most of their outcomes
//! never happen. The first decision of a series takes a lock, later ones add to a counter of their
//! thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::hits::{HitSplit, RuleHits};
use crate::telemetry::sharded::ShardedCounter;

/// The outcome of the decision on one descriptor, as metrics name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OutcomeLabel {
    /// Passes.
    Admitted,
    /// Passes, and its limit is nearly used up.
    NearLimit,
    /// Over its limit.
    OverLimit,
    /// Over its limit, and passes because of shadow mode.
    Shadowed,
    /// Passes, decided without the store.
    DegradedAdmitted,
    /// Over its limit, decided without the store.
    DegradedOverLimit,
    /// Asked for nothing, and passes.
    Peek,
    /// Gave hits back.
    Refund,
}

impl OutcomeLabel {
    const ALL: [Self; 8] = [
        Self::Admitted,
        Self::NearLimit,
        Self::OverLimit,
        Self::Shadowed,
        Self::DegradedAdmitted,
        Self::DegradedOverLimit,
        Self::Peek,
        Self::Refund,
    ];

    /// The value of the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::NearLimit => "near_limit",
            Self::OverLimit => "over_limit",
            Self::Shadowed => "shadowed",
            Self::DegradedAdmitted => "degraded_admitted",
            Self::DegradedOverLimit => "degraded_over_limit",
            Self::Peek => "peek",
            Self::Refund => "refund",
        }
    }
}

/// The limit that a descriptor met, as its rule has it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LimitOf {
    /// The limit at this position of the rule.
    Rule(usize),
    /// A limit of a client.
    Client,
    /// The override in the descriptor.
    Override,
}

impl LimitOf {
    /// The label of a limit of a client, and of a client in place of a rule.
    pub const CLIENT: &str = "(client)";

    /// The label of an override, and of one in place of a rule.
    pub const OVERRIDE: &str = "(override)";

    /// The number of limits that are not of the rule.
    const OTHERS: usize = 2;

    /// Its place among the counters of a rule.
    const fn slot(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Override => 1,
            Self::Rule(position) => Self::OTHERS + position,
        }
    }

    /// The value of the label `limit`, unless the limit is that of a rule.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Rule(_) => None,
            Self::Client => Some(Self::CLIENT),
            Self::Override => Some(Self::OVERRIDE),
        }
    }
}

/// A decision on one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    /// The outcome.
    pub outcome: OutcomeLabel,
    /// The hits that the descriptor asked for, or gave back.
    pub hits: u64,
    /// The same as envoyproxy/ratelimit counts them, if they are counted.
    pub split: Option<HitSplit>,
}

/// The labels of a series, but for its outcome.
#[derive(Clone, Debug)]
pub struct SeriesName {
    /// The domain.
    pub domain: String,
    /// The rule.
    pub rule: String,
    /// The limit.
    pub limit: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct DecisionLabels {
    pub(super) domain: String,
    pub(super) rule: String,
    pub(super) limit: String,
    pub(super) outcome: &'static str,
}

/// All decisions of the process, by series.
#[derive(Debug, Default)]
pub(super) struct Decisions(Mutex<BTreeMap<DecisionLabels, Series>>);

/// The counters of a series.
#[derive(Clone, Debug, Default)]
struct Series {
    decisions: ShardedCounter,
    hits: ShardedCounter,
}

impl Decisions {
    pub(super) fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(Arc::clone(self)));
    }

    /// The counters of a series; equal names have equal counters.
    fn series(&self, name: SeriesName, outcome: OutcomeLabel) -> Series {
        let SeriesName { domain, rule, limit } = name;
        let labels = DecisionLabels { domain, rule, limit, outcome: outcome.name() };
        self.0.lock().entry(labels).or_default().clone()
    }

    /// Visits each series with its decisions and hits so far, in order.
    pub(super) fn each(&self, mut visit: impl FnMut(&DecisionLabels, u64, u64)) {
        for (labels, Series { decisions, hits }) in self.0.lock().iter() {
            visit(labels, decisions.get(), hits.get());
        }
    }
}

impl Collector for Decisions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.lock().clone();
        let of_decisions = "Descriptors decided, by domain, rule, limit and outcome";
        let of_hits = "Hits of the descriptors decided, by domain, rule, limit and outcome";
        let decisions: fn(&Series) -> u64 = |series| series.decisions.get();
        let hits: fn(&Series) -> u64 = |series| series.hits.get();
        for (name, help, sum) in [("decisions", of_decisions, decisions), ("hits", of_hits, hits)] {
            if all.is_empty() {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in &all {
                let sum = sum(series);
                family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&sum, None)?;
            }
        }
        Ok(())
    }
}

/// The counters of one limit, by outcome.
#[derive(Debug, Default)]
pub(super) struct LimitCounters([OnceLock<Series>; OutcomeLabel::ALL.len()]);

impl LimitCounters {
    /// Counts `decided`; `name` makes the name of its series, which begins with this decision.
    #[expect(clippy::indexing_slicing, reason = "one per outcome")]
    pub(super) fn count(
        &self,
        all: &Decisions,
        decided: Decided,
        name: impl FnOnce() -> SeriesName,
    ) {
        let Decided { outcome, hits, .. } = decided;
        let series = self.0[outcome as usize].get_or_init(|| all.series(name(), outcome));
        series.decisions.inc();
        if hits > 0 {
            series.hits.inc_by(hits);
        }
    }
}

/// The counters of one rule.
#[derive(Debug)]
pub struct RuleMetrics {
    /// By limit; those that have decided nothing take no memory.
    limits: Box<[OnceLock<Box<LimitCounters>>]>,
    /// Its hits under the names of envoyproxy/ratelimit, if they are counted.
    hits: Option<RuleHits>,
}

impl RuleMetrics {
    /// The counters of a rule with so many limits.
    pub(super) fn new(limits: usize, hits: Option<RuleHits>) -> Self {
        let limits = (0..LimitOf::OTHERS + limits).map(|_| OnceLock::new()).collect();
        Self { limits, hits }
    }

    pub(super) fn count(
        &self,
        all: &Decisions,
        limit: LimitOf,
        decided: Decided,
        name: impl FnOnce() -> SeriesName,
    ) {
        if let Some(counters) = self.limits.get(limit.slot()) {
            counters.get_or_init(Box::default).count(all, decided, name);
        }
        if let Some((counters, split)) = self.hits.as_ref().zip(decided.split) {
            counters.add(split);
        }
    }
}

/// The counters of a limit that are found by a label, and not by a rule.
#[derive(Debug)]
pub(super) struct LabelledMetrics {
    limit: LimitCounters,
    hits: Option<RuleHits>,
}

impl LabelledMetrics {
    pub(super) fn new(hits: Option<RuleHits>) -> Self {
        Self { limit: LimitCounters::default(), hits }
    }

    pub(super) fn count(
        &self,
        all: &Decisions,
        decided: Decided,
        name: impl FnOnce() -> SeriesName,
    ) {
        self.limit.count(all, decided, name);
        if let Some((counters, split)) = self.hits.as_ref().zip(decided.split) {
            counters.add(split);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_a_place_and_a_name_of_their_own() {
        for (place, outcome) in OutcomeLabel::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "{outcome:?}");
            let alike = OutcomeLabel::ALL.iter().filter(|other| other.name() == outcome.name());
            assert_eq!(alike.count(), 1, "{outcome:?}");
        }
    }

    #[test]
    fn series_begin_with_their_first_decision_and_outlive_their_rule() {
        let all = Decisions::default();
        let name = || SeriesName { domain: "d".into(), rule: "k".into(), limit: "9/DAY".into() };
        let count = |rule: &RuleMetrics, outcome, hits| {
            let decided = Decided { outcome, hits, split: None };
            rule.count(&all, LimitOf::Rule(0), decided, name);
        };
        let seen = || {
            let mut seen = Vec::new();
            all.each(|labels, decisions, hits| seen.push((labels.outcome, decisions, hits)));
            seen
        };
        let rule = RuleMetrics::new(1, None);
        assert_eq!(seen(), []);
        count(&rule, OutcomeLabel::Admitted, 3);
        // After a reload.
        count(&RuleMetrics::new(1, None), OutcomeLabel::Admitted, 4);
        assert_eq!(seen(), [("admitted", 2, 7)]);
    }
}
