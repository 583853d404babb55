//! The waits that denied callers are told: one slot after the other, so that they do not all come
//! back at the same instant.
//!
//! A counter that is used up fits the hits of each denied caller at the same time, but those of
//! only one caller. So each caller is told the slot after the last one that was told: a slot is as
//! long as the hits take at the rate of the limit. Each of N replicas has slots of its own, N times
//! as long.
//!
//! ```text
//! told = far + T * N - now, at least fit, at most fit + cap        far = max(far, now + told)
//! ```
//! `fit` is the time until the hits fit, `T` the time of the hits at the rate, `far` the last slot
//! that was told, `cap` one period and at most a minute.
//!
//! It is advice: no decision depends on it, and the deny cache believes `fit`. Callers of one
//! counter are not told apart, so a caller that comes back too early is told a later slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::failover::replicas::Replicas;
use super::key_table::{Fleeting, KeyTable};
use crate::domain::limit::Span;
use crate::domain::{Claim, Hits, Limit};
use crate::limiter::ask::{Ask, Ruling};

/// Counters whose slots are known at a time.
const MAX_COUNTERS: usize = 16_384;

/// The longest wait beyond the time at which the hits fit.
const MAX_SPREAD: Duration = Duration::from_mins(1);

/// The slots that were told, by counter.
#[derive(Debug)]
pub struct RetrySlots {
    table: KeyTable<LastSlot>,
    replicas: Arc<Replicas>,
}

/// The last slot of a counter that was told.
#[derive(Clone, Copy, Debug)]
struct LastSlot(Instant);

impl RetrySlots {
    /// No slot is told yet. The replicas are those that deny the same callers.
    pub fn new(replicas: Arc<Replicas>) -> Self {
        Self { table: KeyTable::new(MAX_COUNTERS), replicas }
    }

    /// Lets each enforced descriptor of `ask` that failed report a slot of its own. For denied
    /// requests.
    pub(in crate::limiter) fn spread(&self, ask: &mut Ask, now: Instant) {
        for part in 0..ask.group().parts.len() {
            let Some((place, ruling)) = self.spread_part(ask, part, now) else { continue };
            ask.rule_one(place, ruling);
        }
    }

    /// The ruling with a slot for the claim whose wait the `part`-th descriptor reports.
    fn spread_part(&self, ask: &Ask, part: usize, now: Instant) -> Option<(usize, Ruling)> {
        let part = ask.group().parts.get(part).filter(|part| !part.shadow)?;
        let place = ask.worst_of(part)?;
        let (claim, asked) = ask.claim(place)?;
        let mut ruling = *asked.ruling();
        let fit = ruling.reading.retry_after.filter(|_| ruling.counted())?;
        ruling.reading.retry_after = Some(self.slot(claim, fit, now)?);
        Some((place, ruling))
    }

    /// The slot of a caller whose `claim` fits in `fit`; none for one that takes no hits.
    fn slot(&self, claim: &Claim, fit: Duration, now: Instant) -> Option<Duration> {
        let Hits::Take(hits) = claim.hits else { return None };
        let (key, limit) = (&claim.key, &claim.limit);
        let step = step(limit, hits, self.replicas.seen());
        let told = |last: &mut LastSlot| last.next(fit, step, cap(limit), now);
        Some(self.table.with(key, limit, told).unwrap_or_else(|| {
            self.table.put(key, limit, LastSlot(now + fit), now);
            fit
        }))
    }
}

impl LastSlot {
    /// The wait until the next slot, which is now the last one.
    ///
    /// A last slot far beyond what could be told now was told before hits were given back, or for
    /// more hits than these. It does not count.
    fn next(&mut self, fit: Duration, step: Duration, cap: Duration, now: Instant) -> Duration {
        let far = self.0.saturating_duration_since(now);
        if far > fit + 2 * cap {
            self.0 = now + fit;
            return fit;
        }
        let told = (self.0 + step).saturating_duration_since(now).clamp(fit, fit + cap);
        self.0 = self.0.max(now + told);
        told
    }
}

impl Fleeting for LastSlot {
    fn ends(&self) -> Instant {
        self.0
    }
}

/// The length of a slot: the time of `hits` at the rate, for each of `replicas`.
fn step(limit: &Limit, hits: u64, replicas: u32) -> Duration {
    let Span { micros, remainder } = limit.cost(hits);
    let time = Duration::from_micros(micros + u64::from(remainder > 0));
    time.saturating_mul(replicas).min(MAX_SPREAD)
}

/// The longest wait beyond the time at which the hits fit.
fn cap(limit: &Limit) -> Duration {
    limit.period().min(MAX_SPREAD)
}

#[cfg(test)]
mod tests;
