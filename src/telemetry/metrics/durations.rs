//! The time to decide, by outcome and by what decided.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::sharded::{Bounds, DurationHistogram};

/// From 50 µs to 50 ms, with the default timeout of Envoy, 20 ms, among them.
pub(super) const BOUNDS: Bounds = [
    50_000, 75_000, 100_000, 150_000, 250_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_500_000,
    5_000_000, 10_000_000, 20_000_000, 25_000_000, 50_000_000,
];

/// The outcome of a request, as its duration is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    /// It passes.
    Admitted,
    /// It is over a limit.
    OverLimit,
    /// Decided without the store, because that did not answer.
    Degraded,
}

const OUTCOMES: [&str; 3] = ["admitted", "over_limit", "degraded"];

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DurationLabels {
    outcome: &'static str,
    store: &'static str,
}

/// The histograms of the time to decide. Each begins with its first request.
#[derive(Debug)]
pub struct DecisionDurations {
    family: Family<DurationLabels, DurationHistogram, fn() -> DurationHistogram>,
    /// The store of the process.
    store: OnceLock<&'static str>,
    /// Asked of the store, and not.
    by_outcome: [[OnceLock<DurationHistogram>; OUTCOMES.len()]; 2],
}

impl Default for DecisionDurations {
    fn default() -> Self {
        let make: fn() -> DurationHistogram = || DurationHistogram::with_bounds(&BOUNDS);
        Self {
            family: Family::new_with_constructor(make),
            store: OnceLock::new(),
            by_outcome: Default::default(),
        }
    }
}

impl DecisionDurations {
    /// Names the store of the process. The first name stays.
    pub fn name_store(&self, store: &'static str) {
        self.store.get_or_init(|| store);
    }

    /// Counts a request that took `duration`; `asked`: of the store.
    #[expect(clippy::indexing_slicing, reason = "one per outcome, for both")]
    pub fn observe(&self, outcome: Answered, asked: bool, duration: Duration) {
        let histogram = &self.by_outcome[usize::from(!asked)][outcome as usize];
        histogram.get_or_init(|| self.series(outcome, asked)).observe(duration);
    }

    #[expect(clippy::indexing_slicing, reason = "one name per outcome")]
    fn series(&self, outcome: Answered, asked: bool) -> DurationHistogram {
        let store = if asked { self.store.get().copied().unwrap_or("memory") } else { "none" };
        let labels = DurationLabels { outcome: OUTCOMES[outcome as usize], store };
        self.family.get_or_create_owned(&labels)
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "decision_duration",
            "Time to decide a request, store included, network excluded",
            Unit::Seconds,
            self.family.clone(),
        );
    }
}
