//! The hits of a share that the store does not know yet, and what to tell it of them.
//!
//! A replica keeps one [`Untold`] per key of which its share has admitted hits. It decays by
//! itself: hits that have refilled, or have left their window, are not told.
//!
//! The promise of shares does not rest on it: what is told makes the store deny sooner. Each hit is
//! told at most once, because a telling that was lost may have been charged.

use std::time::Duration;

use super::Timestamp;
use super::amend::Told;
use super::counter::Counter;
use super::limit::{Algorithm, Limit};

/// The untold hits of one key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Untold {
    /// The limit itself, not the share.
    limit: Limit,
    /// The number of replicas by which the share was made.
    replicas: u32,
    known: Known,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    /// The time at which the share would be full if it had admitted only what the store knows.
    Bucket { full_at: Timestamp },
    /// Hits that the store does not know, and the time of the newest.
    Sliding { hits: u64, newest: Timestamp },
    /// Hits that the store does not know, and the end of their window.
    Fixed { hits: u64, ends_at: Timestamp },
    /// Of a concurrency limit: the store is not told of holds, which end by themselves.
    Holds,
}

impl Untold {
    /// Nothing is untold yet of a share of `limit` that begins with the state `first`. The store
    /// knows the hits of that state.
    pub fn new(limit: Limit, replicas: u32, first: &Counter, now: Timestamp) -> Self {
        let known = match limit.algorithm() {
            Algorithm::TokenBucket { .. } => Known::Bucket {
                full_at: match first {
                    Counter::TokenBucket(bucket) => {
                        bucket.full_at.plus_micros(u64::from(bucket.remainder > 0)).max(now)
                    }
                    _ => now,
                },
            },
            Algorithm::SlidingWindow { .. } => Known::Sliding { hits: 0, newest: now },
            Algorithm::FixedWindow => Known::Fixed { hits: 0, ends_at: end(&limit, now) },
            Algorithm::Concurrency => Known::Holds,
        };
        Self { limit, replicas: replicas.max(1), known }
    }

    /// The limit that the share is of.
    pub const fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Goes on with another limit or number of replicas, in a further loss of the store. What is
    /// untold from before counts for the smaller number of replicas, which tells too much of a
    /// bucket rather than too little.
    pub fn resume(&mut self, limit: Limit, replicas: u32, now: Timestamp) {
        let replicas = replicas.max(1);
        let empty = Self::new(limit, replicas, &Counter::Empty, now);
        if std::mem::discriminant(&empty.known) != std::mem::discriminant(&self.known) {
            *self = empty;
        }
        (self.limit, self.replicas) = (limit, replicas.min(self.replicas));
    }

    /// Counts `hits` that the share has charged at `now`. Those of a bucket are in its state.
    pub fn charge(&mut self, charged: u64, now: Timestamp) {
        self.forget_old(now);
        match &mut self.known {
            Known::Bucket { .. } | Known::Holds => {}
            Known::Sliding { hits, newest } => {
                (*hits, *newest) = (hits.saturating_add(charged), now.max(*newest));
            }
            Known::Fixed { hits, ends_at } => {
                (*hits, *ends_at) = (hits.saturating_add(charged), end(&self.limit, now));
            }
        }
    }

    /// Forgets `hits` that were given back to the share, to nothing at least. Those of a bucket are
    /// in its state.
    pub const fn refund(&mut self, given: u64) {
        match &mut self.known {
            Known::Bucket { .. } | Known::Holds => {}
            Known::Sliding { hits, .. } | Known::Fixed { hits, .. } => {
                *hits = hits.saturating_sub(given);
            }
        }
    }

    /// Counts `hits` as known: the share has admitted them, and a late answer says that the store
    /// has charged them as well. `reset_after` is the time until the share is full.
    pub fn settle(&mut self, hits: u64, reset_after: Duration, now: Timestamp) {
        let share_full_at = after(now, reset_after);
        match &mut self.known {
            Known::Bucket { full_at } => {
                // A share takes N times as long as the limit for the same hits.
                let cost = self.limit.cost(hits.saturating_mul(self.replicas.into()));
                *full_at = (*full_at).max(now).plus_micros(cost.micros).min(share_full_at);
            }
            Known::Sliding { .. } | Known::Fixed { .. } | Known::Holds => self.refund(hits),
        }
    }

    /// Takes what there is to tell at `now`; it is not told again. `reset_after` is the time until
    /// the share is full.
    pub fn take(&mut self, reset_after: Duration, now: Timestamp) -> Option<Told> {
        self.forget_old(now);
        match &mut self.known {
            Known::Bucket { full_at } => {
                let share_full_at = after(now, reset_after);
                let untold = share_full_at.micros_since((*full_at).max(now));
                *full_at = share_full_at;
                let micros = untold / u64::from(self.replicas);
                (micros > 0).then_some(Told::Bucket { micros })
            }
            Known::Sliding { hits, newest } => {
                let (hits, age) = (std::mem::take(hits), now.micros_since(*newest));
                (hits > 0).then_some(Told::Sliding { hits, age })
            }
            Known::Fixed { hits, ends_at } => {
                let (hits, ends_at) = (std::mem::take(hits), *ends_at);
                (hits > 0).then_some(Told::Fixed { hits, ends_at })
            }
            Known::Holds => None,
        }
    }

    /// True if nothing is untold of a share that is full after `reset_after`.
    pub fn is_told(&self, reset_after: Duration, now: Timestamp) -> bool {
        let mut copy = *self;
        copy.take(reset_after, now).is_none()
    }

    /// Forgets hits that no longer count.
    fn forget_old(&mut self, now: Timestamp) {
        let period = self.limit.period_micros();
        match &mut self.known {
            Known::Sliding { hits, newest } if newest.plus_micros(period) <= now => *hits = 0,
            Known::Fixed { hits, ends_at } if *ends_at <= now => *hits = 0,
            _ => {}
        }
    }
}

/// The end of the window that `now` is in.
fn end(limit: &Limit, now: Timestamp) -> Timestamp {
    limit.window(now).end
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now.plus_micros(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
