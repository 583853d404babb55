//! The instruments of holds.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::sharded::ShardedCounter;

/// The states of holds, as metrics name them.
const STATES: [&str; 10] = [
    "reserved",
    "settled",
    "again",
    "late",
    "unmatched",
    "invalid",
    "self_settled",
    "unknown_cost",
    "unguarded",
    "renewed",
];

/// Counts of holds.
#[derive(Debug, Default)]
pub struct HoldMetrics {
    holds: Family<HoldLabel, ShardedCounter>,
    unsettled: Counter,
    /// Settlements under way.
    pub queue: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HoldLabel {
    state: &'static str,
}

impl HoldMetrics {
    /// Counts charges that a hold has made.
    pub fn reserved(&self, charges: u64) {
        self.holds.get_or_create(&HoldLabel { state: "reserved" }).inc_by(charges);
    }

    /// Counts a settlement, or what became of one.
    pub fn settled(&self, state: &'static str) {
        self.holds.get_or_create(&HoldLabel { state }).inc();
    }

    /// Counts a settlement that never reached the store.
    pub fn unsettled(&self) {
        self.unsettled.inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for state in STATES {
            drop(self.holds.get_or_create(&HoldLabel { state }));
        }
        registry.register("holds", "Charges of holds, and what became of them", self.holds.clone());
        registry.register(
            "unsettled_holds",
            "Settlements that never reached the store; their holds end by themselves",
            self.unsettled.clone(),
        );
        registry.register("settle_queue", "Settlements under way", self.queue.clone());
    }
}
