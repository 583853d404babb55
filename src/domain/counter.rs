//! The state of one counter, and one step of it, under any algorithm.
//!
//! A counter belongs to one key, and the key names the algorithm. A state of an algorithm other
//! than the limit's counts as empty.

use std::time::Duration;

use super::amend::Change;
use super::lease::LeaseAsk;
use super::limit::{Algorithm, Limit};
use super::reading::{Hits, Reading};
use super::{Timestamp, concurrency, fixed_window, sliding_window, token_bucket};

/// The state of a counter; empty means nothing used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Counter {
    /// Nothing used: a full bucket, an empty window.
    #[default]
    Empty,
    /// A token bucket.
    TokenBucket(token_bucket::Bucket),
    /// A sliding window.
    SlidingWindow(sliding_window::WindowLog),
    /// A fixed window.
    FixedWindow(fixed_window::WindowCount),
    /// The holds on a concurrency limit.
    Concurrency(concurrency::Slots),
}

impl Counter {
    /// Clamps a state that is further ahead than any limit could have written it at `now`. This
    /// happens after the clock has stepped back. Any other state stays unchanged, to the bit: a
    /// smaller limit does not forgive hits that were charged under a larger one.
    ///
    /// The clamped state is written even when the request is denied, because the reported
    /// `retry_after` is relative to it.
    pub fn clamp_to_clock(&mut self, limit: &Limit, now: Timestamp) {
        match self {
            Self::Empty => {}
            _ if limit.is_blocked() => {}
            Self::TokenBucket(state) => state.clamp_to_clock(limit, now),
            Self::SlidingWindow(state) => state.clamp_to_clock(now),
            Self::FixedWindow(state) => state.clamp_to_clock(limit, now),
            // A hold lasts longer by what the clock has stepped back.
            Self::Concurrency(_) => {}
        }
    }

    /// Decides `hits` at `now`. Charges them if they pass, or if the limit always charges. A denial
    /// leaves the [clamped](Self::clamp_to_clock) state unchanged, to the bit.
    pub fn step(&mut self, limit: &Limit, hits: Hits, now: Timestamp) -> Reading {
        self.clamp_to_clock(limit, now);
        self.step_clamped(limit, hits, None, now)
    }

    /// [`step`](Self::step) for a counter that is already clamped at `now`. If the hits pass and
    /// are charged, also grants the lease of a token bucket that `ask` describes.
    pub(super) fn step_clamped(
        &mut self,
        limit: &Limit,
        hits: Hits,
        ask: Option<&LeaseAsk>,
        now: Timestamp,
    ) -> Reading {
        if limit.is_blocked() {
            return blocked(hits);
        }
        let reading = match limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                self.with_bucket(|state| token_bucket::step(state, limit, hits, ask, now))
            }
            Algorithm::SlidingWindow { .. } => {
                self.with_log(|state| sliding_window::step(state, limit, hits, now))
            }
            Algorithm::FixedWindow => {
                self.with_count(|state| fixed_window::step(state, limit, hits, now))
            }
            Algorithm::Concurrency => {
                self.with_slots(|state| concurrency::step(state, limit, hits, now))
            }
        };
        Reading { at: now, ..reading }
    }

    /// Applies `change` at `now`. Returns the amount that was given back or charged: microseconds
    /// of a bucket, hits of a window. If that is 0, the [clamped](Self::clamp_to_clock) state stays
    /// unchanged, to the bit.
    pub fn amend(&mut self, limit: &Limit, change: &Change, now: Timestamp) -> u64 {
        if limit.is_blocked() {
            return 0;
        }
        self.clamp_to_clock(limit, now);
        match limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                self.with_bucket(|state| token_bucket::amend(state, limit, change, now))
            }
            Algorithm::SlidingWindow { .. } => {
                self.with_log(|state| sliding_window::amend(state, limit, change, now))
            }
            Algorithm::FixedWindow => {
                self.with_count(|state| fixed_window::amend(state, limit, change, now))
            }
            Algorithm::Concurrency => {
                self.with_slots(|state| concurrency::amend(state, change, now))
            }
        }
    }

    /// The time of the charge of the hold on a concurrency limit that ends first.
    pub fn oldest_hold(&self, limit: &Limit, now: Timestamp) -> Option<Timestamp> {
        let Self::Concurrency(slots) = self else { return None };
        let until = slots.oldest(now)?.until.as_micros();
        Some(Timestamp::from_micros(until.saturating_sub(limit.period_micros())))
    }

    fn with_bucket<T>(&mut self, work: impl FnOnce(&mut Option<token_bucket::Bucket>) -> T) -> T {
        let before = std::mem::take(self);
        let mut state = if let Self::TokenBucket(state) = before { Some(state) } else { None };
        let result = work(&mut state);
        *self = state.map_or(Self::Empty, Self::TokenBucket);
        result
    }

    fn with_log<T>(&mut self, work: impl FnOnce(&mut sliding_window::WindowLog) -> T) -> T {
        let before = std::mem::take(self);
        let mut state = if let Self::SlidingWindow(state) = before {
            state
        } else {
            sliding_window::WindowLog::default()
        };
        let result = work(&mut state);
        *self = if state.runs.is_empty() { Self::Empty } else { Self::SlidingWindow(state) };
        result
    }

    fn with_count<T>(
        &mut self,
        work: impl FnOnce(&mut Option<fixed_window::WindowCount>) -> T,
    ) -> T {
        let before = std::mem::take(self);
        let mut state = if let Self::FixedWindow(state) = before { Some(state) } else { None };
        let result = work(&mut state);
        *self = state.map_or(Self::Empty, Self::FixedWindow);
        result
    }

    fn with_slots<T>(&mut self, work: impl FnOnce(&mut concurrency::Slots) -> T) -> T {
        let before = std::mem::take(self);
        let mut state = if let Self::Concurrency(state) = before {
            state
        } else {
            concurrency::Slots::default()
        };
        let result = work(&mut state);
        *self = if state.is_empty() { Self::Empty } else { Self::Concurrency(state) };
        result
    }

    /// The time at which the counter is empty and may be dropped, if the clock does not step back.
    pub fn empty_at(&self, limit: &Limit) -> Timestamp {
        match self {
            Self::Empty => Timestamp::EPOCH,
            Self::TokenBucket(state) => state.empty_at(),
            Self::SlidingWindow(state) => state.empty_at(limit),
            Self::FixedWindow(state) => state.empty_at(limit),
            Self::Concurrency(state) => state.empty_at(),
        }
    }
}

/// The reading of a limit of zero. It has no state: refunds pass, hits never do.
pub(super) fn blocked(hits: Hits) -> Reading {
    let passed = matches!(hits, Hits::Refund(_));
    let retry_after = passed.then_some(Duration::ZERO);
    Reading {
        passed,
        remaining: 0,
        over: 0,
        retry_after,
        reset_after: Duration::ZERO,
        leased_until: None,
        at: Timestamp::EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Charge;

    #[test]
    fn hits_beyond_the_capacity_are_in_the_reading() {
        let minute = Duration::from_mins(1);
        let always = Charge::Always { max_debt: Some(200) };
        for algorithm in [
            Algorithm::FixedWindow,
            Algorithm::SlidingWindow { slots: 10 },
            Algorithm::TokenBucket { burst: 20 },
        ] {
            let limit = Limit::new(20, minute, algorithm, always).unwrap();
            let mut counter = Counter::Empty;
            let mut over = |hits| counter.step(&limit, Hits::Take(hits), Timestamp::EPOCH).over;
            assert_eq!([over(15), over(7), over(1)], [0, 2, 3], "{algorithm:?}");
        }
    }
}
