//! The layer that remembers denials: a counter that could not take so many hits cannot take them
//! again before the time it named, whatever others ask of it.
//!
//! Of a descriptor that failed, each claim is remembered by counter key, limit and hits: that it
//! failed, until its wait is over counted from when it was *sent*; or that it passed. Either for at
//! most a second, so that refunds, resets and charges of other replicas heal without a protocol. A
//! key that the same process charges, gives back or resets is forgotten at once, and an answer that
//! was under way meanwhile is not remembered; only a charge that another core makes at the same
//! time may be overlooked, as one of another replica is.
//!
//! A request is answered from memory only when each of its descriptors fails by it, and nothing
//! about them is left open: the store's answer would differ in the time that has passed, and in
//! nothing more. A descriptor that passes is the store's affair, for its numbers are. Such a
//! request charges nothing, whatever its verdict.
//!
//! Where several servers decide a request, its failures are remembered as suspects only: they say
//! where to look first, and answer nothing.
//!
//! Not remembered: what is [certain](Claim::certain), peeks, more or fewer hits than those of the
//! answer, answers without the store, and two claims on one counter, of which the second saw what
//! the first had charged.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::key_table::{Fleeting, KeyTable};
use crate::domain::{Claim, Group, Hits, Key, Limit, Reading, Timestamp, Verdict};
use crate::limiter::ask::{Ask, Ruling};
use crate::settings::section;
use crate::store::Suspects;
use crate::telemetry::metrics::Metrics;

/// The longest time for which a refund, a reset or a new limit elsewhere goes unnoticed.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The time for which a counter that has denied is a suspect, from when it was to fit again.
const SUSPECTED: Duration = Duration::from_secs(1);

section! {
    /// The deny cache: denials of the last second, repeated without Redis.
    pub struct DenyCacheSettings in "deny_cache" {
        /// Approximate number of counters per process; 0 = off. Not used in memory mode.
        max_keys: usize = "16384" in 0..=10_000_000,
    }
}

/// Readings of claims of failed descriptors, of the last second.
#[derive(Debug)]
pub struct DenyCache {
    table: KeyTable<Remembered>,
    metrics: Arc<Metrics>,
}

/// A denial by the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denial {
    /// The time at which the same hits fit.
    pub(super) fits_at: Instant,
    /// The time at which no hit counts any more.
    pub(super) empty_at: Instant,
}

/// The reading of a claim.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    hits: u64,
    /// The time at which the same hits fit; none: they did.
    fits_at: Option<Instant>,
    /// The time at which no hit counts any more.
    empty_at: Instant,
    /// Until when it is believed.
    until: Instant,
}

impl DenyCache {
    /// Remembers about `max_keys` counters.
    pub fn new(max_keys: usize, metrics: Arc<Metrics>) -> Self {
        Self { table: KeyTable::new(max_keys), metrics }
    }

    /// The rulings on `ask`, if memory alone has them. One per claim, same order.
    pub(super) fn recall(&self, ask: &Ask, now: Instant) -> Option<Vec<Ruling>> {
        let group = ask.group();
        if group.parts.is_empty() || !group.claims.iter().all(Claim::is_conditional) {
            return None;
        }
        let mut rulings = Vec::new();
        for part in &group.parts {
            let mut passed = true;
            for claim in group.claims_of(part) {
                // Most requests end here: nothing is allocated for them.
                let reading = claim.certain().or_else(|| self.known(claim, now))?;
                if reading.passed && !is_alone(group, claim) {
                    return None;
                }
                passed &= reading.passed;
                rulings.push(Ruling::from(reading));
            }
            if passed {
                return None;
            }
        }
        self.metrics.store.remembered_denials.inc();
        Some(rulings)
    }

    /// Remembers what failed of `ask`, which was sent at `sent`. Denials of what was charged are no
    /// answers any more. Those of what was given back are forgotten. The failures of a request that
    /// was `split` are no answers: each may come from hits of another request that are given back.
    pub(super) fn remember(&self, ask: &Ask, sent: Instant, split: bool) {
        let group = ask.group();
        let admitted = ask.verdict() == Verdict::Admit;
        for part in &group.parts {
            let failed = ask.claims_of(part).any(|(_, asked)| !asked.ruling().reading.passed);
            for (claim, asked) in ask.claims_of(part) {
                let ruling = asked.ruling();
                let stays = claim.is_conditional() && !ruling.degraded();
                match claim.hits {
                    _ if claim.certain().is_some() => {}
                    // A denial sent before, whenever it comes, says nothing of what there is now.
                    Hits::Refund(_) => self.table.remove(&claim.key, Instant::now()),
                    Hits::Take(hits) if stays && failed => {
                        if is_alone(group, claim)
                            && let Some(mut known) = Remembered::new(hits, &ruling.reading, sent)
                        {
                            if split {
                                known.until = sent;
                            }
                            self.table.put(&claim.key, &claim.limit, known, sent);
                        }
                    }
                    // Hits that were sent later were decided later. The counter was used up a
                    // moment ago, so it stays suspect.
                    Hits::Take(_) | Hits::Book(_) if admitted || !stays => {
                        self.table.supersede(&claim.key, sent, |known| known.until = sent);
                    }
                    // A release may come at any moment, so nothing is known of the next hold.
                    Hits::Take(_) | Hits::Peek(_) | Hits::Book(_) | Hits::Hold(_) => {}
                }
            }
        }
    }

    /// The last denial of a counter by `limit`, however old; none: it is not remembered.
    pub(super) fn last(&self, key: &Key, limit: &Limit) -> Option<Denial> {
        let known = self.table.with(key, limit, |known| *known)?;
        Some(Denial { fits_at: known.fits_at?, empty_at: known.empty_at })
    }

    /// Forgets what it knows of `key`, whose counter was emptied, or given hits back, before `now`.
    pub(super) fn forget(&self, key: &Key, now: Instant) {
        self.table.remove(key, now);
    }

    fn known(&self, claim: &Claim, now: Instant) -> Option<Reading> {
        let Hits::Take(hits) = claim.hits else { return None };
        let known = self.table.with(&claim.key, &claim.limit, |known| *known)?;
        (known.hits == hits && now < known.until).then(|| known.reading(now))
    }
}

impl Suspects for DenyCache {
    fn suspect(&self, claim: &Claim, now: Instant) -> Option<Instant> {
        let fits_at = self.table.with(&claim.key, &claim.limit, |known| known.fits_at)??;
        (now < fits_at + SUSPECTED).then_some(fits_at)
    }
}

impl Remembered {
    /// The reading of `hits` that were sent at `sent`; none: they never fit, which needs no memory.
    fn new(hits: u64, reading: &Reading, sent: Instant) -> Option<Self> {
        let empty_at = sent + reading.reset_after;
        if reading.passed {
            return Some(Self { hits, fits_at: None, empty_at, until: sent + MAX_AGE });
        }
        let wait = reading.retry_after?;
        Some(Self { hits, fits_at: Some(sent + wait), empty_at, until: sent + wait.min(MAX_AGE) })
    }

    /// The reading as of `now`, without the numbers of a claim that passed: no status reports them.
    fn reading(self, now: Instant) -> Reading {
        let wait = self.fits_at.map_or(Duration::ZERO, |at| at - now);
        Reading {
            passed: self.fits_at.is_none(),
            remaining: 0,
            over: 0,
            retry_after: Some(wait),
            reset_after: wait,
            leased_until: None,
            at: Timestamp::EPOCH,
        }
    }
}

impl Fleeting for Remembered {
    fn ends(&self) -> Instant {
        self.until
    }
}

/// Returns true if no other claim of `group` has the counter of `claim`.
fn is_alone(group: &Group, claim: &Claim) -> bool {
    group.claims.iter().filter(|other| other.key == claim.key).count() == 1
}
