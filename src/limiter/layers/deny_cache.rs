//! The layer that remembers denials: a counter that could not take so many hits cannot take them again before the time it
//! named, whatever others ask of it.
//!
//! A failed claim is remembered by counter key, limit and hits, until its wait is over counted from when it was *sent*, and
//! for at most a second, so that refunds, resets and other replicas' changes heal without a protocol. A request is answered
//! from memory only when each of its descriptors fails by it: what the answer says of a descriptor that passes is in the
//! store alone. Such a request charges nothing, whatever its verdict.
//!
//! Not remembered: peeks, more or fewer hits than those that failed (their wait is another), answers without the store, and
//! the second of two claims on one counter, which failed because of the first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::failover::Ruling;
use super::key_table::{Fleeting, KeyTable};
use crate::domain::{Claim, Hits, Key, Reading};
use crate::limiter::ask::Ask;
use crate::telemetry::metrics::Metrics;

/// How long a refund, a reset or a new limit elsewhere may go unnoticed.
const LONGEST: Duration = Duration::from_secs(1);

/// Failed claims of the last second.
#[derive(Debug)]
pub struct DenyCache {
    table: KeyTable<Denial>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug)]
struct Denial {
    hits: u64,
    /// When the same hits would fit.
    fits_at: Instant,
    /// When nothing counts as used.
    empty_at: Instant,
    /// Until when it is believed.
    until: Instant,
}

impl DenyCache {
    /// Remembers about `max_keys` counters.
    pub fn new(max_keys: usize, metrics: Arc<Metrics>) -> Self {
        Self { table: KeyTable::new(max_keys), metrics }
    }

    /// The answer to `ask`, if memory alone has it. One ruling per claim, same order.
    pub(super) fn settle(&self, ask: &Ask, now: Instant) -> Option<Vec<Ruling>> {
        let group = &ask.group;
        if group.parts.is_empty() || !group.claims.iter().all(Claim::is_conditional) {
            return None;
        }
        let mut rulings = Vec::new();
        for part in &group.parts {
            let claims = group.claims_of(part);
            // Most requests end here: nothing is allocated for them.
            let find = |(i, claim)| Some((i, self.recall(claim, now)?));
            let (first, failed) = claims.iter().enumerate().find_map(find)?;
            rulings.extend(std::iter::repeat_n(UNKNOWN, first));
            rulings.push(failed);
            let others = claims.iter().skip(first + 1);
            rulings.extend(others.map(|claim| self.recall(claim, now).unwrap_or(UNKNOWN)));
        }
        self.metrics.remembered_denials.inc();
        Some(rulings)
    }

    /// Remembers what failed of `ask`, which was sent at `sent`, and forgets what it gave back.
    pub(super) fn remember(&self, ask: &Ask, rulings: &[Ruling], sent: Instant) {
        for (i, (claim, ruling)) in ask.group.claims.iter().zip(rulings).enumerate() {
            let Ruling { reading, degraded } = ruling;
            if let Hits::Refund(_) = claim.hits {
                self.table.remove(&claim.key);
            }
            let alone = || {
                let mut claims = ask.group.claims.iter().enumerate();
                claims.all(|(j, other)| i == j || other.key != claim.key)
            };
            if let Hits::Take(hits) = claim.hits
                && let Some(wait) = reading.retry_after
                && !reading.passed
                && !degraded
                && claim.is_conditional()
                && alone()
            {
                let (fits_at, empty_at) = (sent + wait, sent + reading.reset_after);
                let until = sent + wait.min(LONGEST);
                let denial = Denial { hits, fits_at, empty_at, until };
                self.table.put(&claim.key, &claim.limit, denial);
            }
        }
    }

    /// Forgets what it knows of `keys`.
    pub(super) fn forget(&self, keys: &[Key]) {
        for key in keys {
            self.table.remove(key);
        }
    }

    fn recall(&self, claim: &Claim, now: Instant) -> Option<Ruling> {
        let Hits::Take(hits) = claim.hits else { return None };
        let denial = self.table.with(&claim.key, &claim.limit, |denial| *denial)?;
        (denial.hits == hits && now < denial.until).then(|| {
            let retry_after = Some(denial.fits_at - now);
            let reset_after = denial.empty_at - now;
            let reading = Reading { passed: false, retry_after, reset_after, ..UNKNOWN.reading };
            Ruling { reading, degraded: false }
        })
    }
}

impl Fleeting for Denial {
    fn ends(&self) -> Instant {
        self.until
    }
}

/// Of a claim beside one that fails for certain. Nothing is said of it.
const UNKNOWN: Ruling = Ruling {
    reading: Reading {
        passed: true,
        remaining: 0,
        retry_after: Some(Duration::ZERO),
        reset_after: Duration::ZERO,
        leased_until: None,
    },
    degraded: false,
};
