//! The instruments of holds.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::telemetry::sharded::{ShardedCounter, ShardedGauge};

/// The state of a hold, as metrics name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HoldState {
    /// Charged.
    Reserved,
    /// Settled.
    Settled,
    /// Settled a second time, without effect.
    Again,
    /// Settled after its end, without effect.
    Late,
    /// Settled for a counter that it has not charged, without effect.
    Unmatched,
    /// Its handle is not good.
    Invalid,
    /// Settled by tollgate, because no answer was handed on.
    SelfSettled,
    /// Settled without a cost.
    UnknownCost,
    /// Settled where there was no room to remember it.
    Unguarded,
    /// Prolonged.
    Renewed,
}

impl HoldState {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Reserved, "reserved"),
        (Self::Settled, "settled"),
        (Self::Again, "again"),
        (Self::Late, "late"),
        (Self::Unmatched, "unmatched"),
        (Self::Invalid, "invalid"),
        (Self::SelfSettled, "self_settled"),
        (Self::UnknownCost, "unknown_cost"),
        (Self::Unguarded, "unguarded"),
        (Self::Renewed, "renewed"),
    ];
}

/// Counts of holds.
#[derive(Debug)]
pub struct HoldMetrics {
    series: Family<HoldLabel, ShardedCounter>,
    /// The counters of `series`, in the order of states.
    by_state: [ShardedCounter; HoldState::ALL.len()],
    unsettled: ShardedCounter,
    expired: ShardedCounter,
    /// Settlements under way.
    pub queue: ShardedGauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HoldLabel {
    state: &'static str,
}

impl Default for HoldMetrics {
    fn default() -> Self {
        let series = Family::<HoldLabel, ShardedCounter>::default();
        let by_state =
            HoldState::ALL.map(|(_, state)| series.get_or_create_owned(&HoldLabel { state }));
        Self {
            series,
            by_state,
            unsettled: ShardedCounter::default(),
            expired: ShardedCounter::default(),
            queue: ShardedGauge::default(),
        }
    }
}

impl HoldMetrics {
    /// Counts a hold that has come to `state`.
    pub fn count(&self, state: HoldState) {
        self.add(state, 1);
    }

    /// Counts so many charges of holds that have come to `state`.
    #[expect(clippy::indexing_slicing, reason = "one per state")]
    pub fn add(&self, state: HoldState, charges: u64) {
        self.by_state[state as usize].inc_by(charges);
    }

    /// Counts a settlement that never reached the store.
    pub fn unsettled(&self) {
        self.unsettled.inc();
    }

    /// Counts slots whose time was up before their release came.
    pub fn expired(&self, slots: u64) {
        self.expired.inc_by(slots);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let series = self.series.clone();
        registry.register("holds", "Charges of holds, and what became of them", series);
        registry.register(
            "unsettled_holds",
            "Settlements that never reached the store; their holds end by themselves",
            self.unsettled.clone(),
        );
        registry.register(
            "expired_holds",
            "Slots of concurrency limits whose time was up before their release came",
            self.expired.clone(),
        );
        registry.register("settle_queue", "Settlements under way", self.queue.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_a_place_of_their_own() {
        for (place, (state, _)) in HoldState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place, "{state:?}");
        }
    }
}
