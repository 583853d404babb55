//! The state of one counter and one step of it, whatever its algorithm.
//!
//! A counter belongs to one key, and the key names the algorithm; a state of another algorithm than the
//! limit's counts as empty.

use std::time::Duration;

use super::limit::{Algorithm, Limit};
use super::{Timestamp, fixed_window, sliding_window, token_bucket};

/// What a claim does to its counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hits {
    /// Asks for so many hits, at least one.
    Take(u64),
    /// Asks whether one hit would pass and charges nothing.
    Peek,
    /// Gives so many hits back. Never fails, never creates state, never passes full.
    Refund(u64),
}

impl Hits {
    /// How many hits must fit for this to pass; nothing for a refund.
    pub const fn needed(self) -> u64 {
        match self {
            Self::Take(hits) => hits,
            Self::Peek => 1,
            Self::Refund(_) => 0,
        }
    }
}

/// What a counter says after a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// Whether the hits fit.
    pub passed: bool,
    /// Whole hits that would still fit.
    pub remaining: u64,
    /// Zero when it passed; else the shortest wait after which the same hits would fit; none: never.
    pub retry_after: Option<Duration>,
    /// The time until nothing counts as used.
    pub reset_after: Duration,
}

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
    /// Pulls a state back that lies further ahead than `limit` could have written it at `now`: the clock has
    /// stepped back since, or the limit holds less than it did. Anything else stays as it is, to the bit.
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
        if limit.is_blocked() {
            return blocked(hits);
        }
        self.settle(limit, now);
        let now = now.as_micros();
        match limit.algorithm() {
            Algorithm::TokenBucket { .. } => token_bucket::step(self, limit, hits, now),
            Algorithm::SlidingWindow { .. } => sliding_window::step(self, limit, hits, now),
            Algorithm::FixedWindow => fixed_window::step(self, limit, hits, now),
        }
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
fn blocked(hits: Hits) -> Reading {
    let passed = matches!(hits, Hits::Refund(_));
    let retry_after = passed.then_some(Duration::ZERO);
    Reading { passed, remaining: 0, retry_after, reset_after: Duration::ZERO }
}
