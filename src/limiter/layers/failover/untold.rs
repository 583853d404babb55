//! The hits of shares that the store does not know yet, by counter, in bounded memory.
//!
//! [`Recovery`] has the number of counters here and of those that are being told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Amendment, Change, Claim, Counter, Hits, Key, Limit, Timestamp, Untold};
use crate::limiter::layers::key_table::{Fleeting, KeyTable};
use crate::store::recovery::Recovery;
use crate::telemetry::metrics::Metrics;

/// Untold hits by counter.
pub(super) struct UntoldHits {
    table: KeyTable<Entry>,
    recovery: Arc<Recovery>,
    metrics: Arc<Metrics>,
}

/// The untold hits of a counter, and the time until which they count.
#[derive(Clone, Copy, Debug)]
struct Entry {
    untold: Untold,
    ends: Instant,
}

impl Fleeting for Entry {
    fn ends(&self) -> Instant {
        self.ends
    }
}

impl UntoldHits {
    /// Keeps about `max_keys` counters.
    pub(super) fn new(max_keys: usize, recovery: Arc<Recovery>, metrics: Arc<Metrics>) -> Self {
        Self { table: KeyTable::new(max_keys), recovery, metrics }
    }

    /// Adds a claim that the share of one of `replicas` has charged, or taken back. `first` is the
    /// state of the share before, and `reset_after` the time until it is full.
    pub(super) fn add(
        &self,
        claim: &Claim,
        replicas: u32,
        first: &Counter,
        reset_after: Duration,
        now: Timestamp,
    ) {
        let limit = claim.limit;
        let ends = Instant::now() + reset_after;
        let known = self.table.update(&claim.key, &limit, |entry| {
            entry.untold.resume(limit, replicas, now);
            count(&mut entry.untold, claim.hits, now);
            entry.ends = entry.ends.max(ends);
        });
        if known || matches!(claim.hits, Hits::Refund(_)) {
            return;
        }
        let mut untold = Untold::new(limit, replicas, first, now);
        count(&mut untold, claim.hits, now);
        self.recovery.add();
        if self.table.put(&claim.key, &limit, Entry { untold, ends }, Instant::now()) {
            self.metrics.outage.untold_dropped.inc();
            self.recovery.remove(1);
        }
    }

    /// Takes out `hits` that the store has charged after all.
    pub(super) fn settle(
        &self,
        key: &Key,
        limit: &Limit,
        hits: u64,
        reset_after: Duration,
        now: Timestamp,
    ) {
        let settle = |entry: &mut Entry| entry.untold.settle(hits, reset_after, now);
        if self.table.update(key, limit, settle) {
            self.metrics.outage.late_settled.inc();
            self.remove_if(key, |entry| entry.untold.is_told(reset_after, now));
        }
    }

    /// Takes out `hits` that were given back to the share.
    pub(super) fn refund(&self, key: &Key, limit: &Limit, hits: u64) {
        self.table.update(key, limit, |entry| entry.untold.refund(hits));
    }

    /// Forgets what is untold of `key`.
    pub(super) fn forget(&self, key: &Key) {
        self.remove_if(key, |_| true);
    }

    fn remove_if(&self, key: &Key, gone: impl FnOnce(&Entry) -> bool) {
        self.recovery.remove(usize::from(self.table.remove_if(key, gone)));
    }

    /// Takes up to `max` amendments that tell the store of counters for which `is_here` holds.
    /// `reset_after` is the time until the share of a counter is full.
    pub(super) fn take(
        &self,
        max: usize,
        now: Timestamp,
        is_here: impl Fn(&Key) -> bool,
        reset_after: impl Fn(&Key, &Limit) -> Duration,
    ) -> Vec<Amendment> {
        let mut amendments = Vec::new();
        let mut gone = 0;
        while amendments.len() < max {
            let taken = self.table.take(max - amendments.len(), &is_here);
            if taken.is_empty() {
                break;
            }
            for (key, limit, mut entry) in taken {
                match entry.untold.take(reset_after(&key, &limit), now) {
                    Some(told) => {
                        amendments.push(Amendment { key, limit, change: Change::Tell(told) });
                    }
                    None => gone += 1,
                }
            }
        }
        self.recovery.remove(gone);
        amendments
    }

    /// Counts amendments that were taken and are over; `applied` is what the store has charged.
    pub(super) fn told(&self, amendments: &[Amendment], applied: Option<&[u64]>) {
        let amounts = amendments.iter().zip(applied.unwrap_or_default());
        let hits = amounts.map(|(told, amount)| told.hits_in(*amount)).sum();
        self.metrics.outage.told_hits.inc_by(hits);
        self.recovery.remove(amendments.len());
    }
}

fn count(untold: &mut Untold, hits: Hits, now: Timestamp) {
    match hits {
        Hits::Take(hits) | Hits::Book(hits) => untold.charge(hits, now),
        Hits::Refund(hits) => untold.refund(hits),
        Hits::Peek(_) | Hits::Hold(_) => {}
    }
}
