//! What a claim asks of a counter, and what the counter says to it.

use std::time::Duration;

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
    /// The lease that the claim asked for is granted if the charge stands; the store counts it as outstanding until this
    /// time, in microseconds since 1970.
    pub leased_until: Option<u64>,
}
