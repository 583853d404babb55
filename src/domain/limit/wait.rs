//! Delay instead of deny: hits of a token bucket that the bucket has soon pass now and wait.
//!
//! c hits pass if the bucket, charged with them, is full no later than now + B*P/n + W. They wait
//! until that is within B*P/n, at most W. Nothing but the span that must fit differs from a bucket
//! without waits, so the script needs no more than that number.
//!
//! Promise: if the hits of each request are used when its wait is over, then in any interval of
//! length t, used <= burst + rate * t.
//!
//! Letters: n requests per period P, burst B, longest wait W, c hits.

use std::time::Duration;

use super::{Algorithm, Charge, Limit, Reach, Span};
use crate::domain::reading::{Hits, Reading};

impl Limit {
    /// The longest wait that a limit may have.
    pub const MAX_WAIT: Duration = Duration::from_secs(10);

    /// The same limit, whose hits may wait for up to `max_wait`, at most [`Self::MAX_WAIT`]. Only
    /// hits of a token bucket that are charged on admission wait.
    #[must_use]
    pub fn waiting(self, max_wait: Duration) -> Self {
        let micros = max_wait.min(Self::MAX_WAIT).as_micros() as u32;
        self.waiting_micros(micros, 1)
    }

    /// [`waiting`](Self::waiting) for the limit by which each of `replicas` replicas decides.
    pub(in crate::domain) fn waiting_micros(mut self, max_wait: u32, replicas: u32) -> Self {
        let Algorithm::TokenBucket { burst } = self.algorithm else { return self };
        if self.charge != Charge::Admitted || self.requests == 0 {
            return self;
        }
        self.max_wait = max_wait;
        let capacity = self.cost(burst.into());
        self.full = Span { micros: capacity.micros + u64::from(max_wait), ..capacity };
        // Whole hits, so that limits of equal reach have equal ceilings.
        self.ceiling = self.cost(self.passing());
        self.reach = Reach::of_hits(self.passing().saturating_mul(replicas.into()));
        self
    }

    /// The longest wait of hits that pass.
    pub const fn max_wait(&self) -> Duration {
        Duration::from_micros(self.max_wait as u64)
    }

    /// The maximum number of hits that pass at once, those that wait included; rounded up.
    pub const fn passing(&self) -> u64 {
        let waiting = self.max_wait as u128 * self.rate() as u128;
        // At most 10^7 * 2^32.
        self.capacity() + waiting.div_ceil(self.period as u128) as u64
    }

    /// The wait of `hits` that passed with this reading of a bucket, rounded up to microseconds.
    pub fn wait(&self, hits: Hits, reading: &Reading) -> Duration {
        if self.max_wait == 0 || !reading.passed || !matches!(hits, Hits::Take(_)) {
            return Duration::ZERO;
        }
        let capacity = Duration::from_micros(self.cost(self.capacity()).micros);
        reading.reset_after.saturating_sub(capacity).min(self.max_wait())
    }

    /// The cost of the hits of a claim on a token bucket. More hits than fit at once never pass: no
    /// wait would keep the promise.
    pub fn price(&self, hits: Hits) -> Span {
        match hits {
            Hits::Take(hits) | Hits::Peek(hits) if self.max_wait > 0 && hits > self.capacity() => {
                Span::SATURATED
            }
            Hits::Take(hits) | Hits::Peek(hits) | Hits::Book(hits) | Hits::Refund(hits) => {
                self.cost(hits)
            }
            Hits::Hold(_) => self.cost(1),
        }
    }
}

#[cfg(test)]
mod tests;
