//! The memory store against the vectors and against the domain core on random traces, on a manual clock.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tollgate::domain::{
    Amendment, Commit, Group, ManualClock, Reading, Settled, Settlement, Timestamp,
};
use tollgate::store::{LimitStore, MemoryStore};

use super::compare::Model;
use super::traces::Trace;
use super::vectors::{group, vectors};

pub struct Memory {
    clock: Arc<ManualClock>,
    store: MemoryStore<Arc<ManualClock>>,
}

impl Memory {
    /// Room for so few that each counter is looked at, and dropped if it is empty, whenever another one comes.
    pub fn small() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { store: MemoryStore::new(64, Arc::clone(&clock)), clock }
    }

    fn large() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { store: MemoryStore::new(1_000_000, Arc::clone(&clock)), clock }
    }

    pub fn decide(&self, group: &Group, commit: Commit, now: Timestamp) -> Vec<Reading> {
        self.clock.set(now);
        // It needs no runtime, for it never waits.
        let answer =
            self.store.decide(group, commit, Instant::now().into()).now_or_never().unwrap();
        answer.readings.into_iter().map(Option::unwrap).collect()
    }
}

impl Memory {
    pub fn amend(&self, amendments: &[Amendment], now: Timestamp) -> Vec<u64> {
        self.clock.set(now);
        self.store.amend(amendments)
    }

    pub fn settle(&self, settlement: &Settlement, now: Timestamp) -> Settled {
        self.clock.set(now);
        self.store.settle_now(settlement)
    }
}

#[test]
fn memory_store_gives_the_exact_answers() {
    let memory = Memory::large();
    for (i, trace) in vectors().iter().enumerate() {
        for (j, step) in trace.steps.iter().enumerate() {
            let group = group(i, trace.limit(), step.hits());
            let now = Timestamp::from_micros(step.t_us);
            let found = memory.decide(&group, Commit::Together, now);
            assert_eq!(found, [step.reading(found[0])], "trace {i} step {j}");
        }
    }
}

/// Plays `trace`, whose clock goes forwards, on a memory store and on the core.
pub fn memory_agrees(trace: &Trace, seed: u64) {
    let (memory, mut model) = (Memory::small(), Model::default());
    for step in &trace.steps {
        for (group, commit) in &step.groups {
            let expected = model.decide(group, *commit, step.now);
            let found = memory.decide(group, *commit, step.now);
            assert_eq!(found, expected, "seed {seed} at {:?}", step.now);
        }
    }
}

#[test]
fn memory_store_and_core_agree_on_random_traces() {
    let mut played = 0;
    for seed in 0..100_000 {
        let trace = Trace::of_seed(seed);
        // A counter that was dropped when it was empty does not come back with the clock.
        if !trace.steps.is_sorted_by_key(|step| step.now) {
            continue;
        }
        played += 1;
        memory_agrees(&trace, seed);
    }
    assert!(played > 30_000, "only {played} traces have a forward clock");
}
