//! The state of one counter and one step of it, whatever its algorithm.
//!
//! A counter belongs to one key, and the key names the algorithm; a state of another algorithm than the
//! limit's counts as empty.

use std::time::Duration;

use super::lease::LeaseAsk;
use super::limit::{Algorithm, Limit};
use super::reading::{Hits, Reading};
use super::{Timestamp, fixed_window, sliding_window, token_bucket};

/// The state of a counter; empty means nothing used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Counter {
    /// Nothing used: a full bucket, an empty window.
    #[default]
    Empty,
    /// A token bucket.
    TokenBucket(token_bucket::State),
    /// A sliding window.
    SlidingWindow(sliding_window::State),
    /// A fixed window.
    FixedWindow(fixed_window::State),
}

impl Counter {
    /// Pulls a state back that lies further ahead than any limit could have written it at `now`: the clock has
    /// stepped back since. Anything else stays as it is, to the bit; a smaller limit forgives nothing of what a
    /// larger one has used.
    ///
    /// This is written even when the request is denied: the wait that a denial reports counts from it.
    pub fn settle(&mut self, limit: &Limit, now: Timestamp) {
        let now = now.as_micros();
        match self {
            Self::Empty => {}
            _ if limit.is_blocked() => {}
            Self::TokenBucket(state) => state.settle(limit, now),
            Self::SlidingWindow(state) => state.settle(now),
            Self::FixedWindow(state) => state.settle(limit, now),
        }
    }

    /// Decides `hits` at `now` and charges them if they pass, or if the limit always charges. What is
    /// denied leaves the [settled](Self::settle) state as it was, to the bit.
    pub fn step(&mut self, limit: &Limit, hits: Hits, now: Timestamp) -> Reading {
        self.settle(limit, now);
        self.step_settled(limit, hits, None, now)
    }

    /// The same for a counter that has been settled at `now`; and a lease of a token bucket's tokens if the hits pass and are
    /// charged.
    pub(super) fn step_settled(
        &mut self,
        limit: &Limit,
        hits: Hits,
        ask: Option<&LeaseAsk>,
        now: Timestamp,
    ) -> Reading {
        if limit.is_blocked() {
            return blocked(hits);
        }
        let now = now.as_micros();
        let reading;
        *self = match (limit.algorithm(), std::mem::take(self)) {
            (Algorithm::TokenBucket { .. }, before) => {
                let mut state =
                    if let Self::TokenBucket(state) = before { Some(state) } else { None };
                reading = token_bucket::step(&mut state, limit, hits, ask, now);
                state.map_or(Self::Empty, Self::TokenBucket)
            }
            (Algorithm::SlidingWindow { .. }, before) => {
                let mut state = if let Self::SlidingWindow(state) = before {
                    state
                } else {
                    sliding_window::State::default()
                };
                reading = sliding_window::step(&mut state, limit, hits, now);
                if state.runs.is_empty() { Self::Empty } else { Self::SlidingWindow(state) }
            }
            (Algorithm::FixedWindow, before) => {
                let mut state =
                    if let Self::FixedWindow(state) = before { Some(state) } else { None };
                reading = fixed_window::step(&mut state, limit, hits, now);
                state.map_or(Self::Empty, Self::FixedWindow)
            }
        };
        reading
    }

    /// When the counter is empty again on a forward clock, and may be dropped.
    pub fn empty_at(&self, limit: &Limit) -> Timestamp {
        Timestamp::from_micros(match self {
            Self::Empty => 0,
            Self::TokenBucket(state) => state.empty_at(),
            Self::SlidingWindow(state) => state.empty_at(limit),
            Self::FixedWindow(state) => state.empty_at(limit),
        })
    }
}

/// A limit of zero has no state: hits may be given back, nothing else ever passes.
pub(super) fn blocked(hits: Hits) -> Reading {
    let passed = matches!(hits, Hits::Refund(_));
    let retry_after = passed.then_some(Duration::ZERO);
    Reading { passed, remaining: 0, retry_after, reset_after: Duration::ZERO, leased_until: None }
}
