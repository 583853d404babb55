//! The hits that a claim asks for, and the reading of the counter after the step.

use std::time::Duration;

use super::Timestamp;

/// The effect of a claim on its counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hits {
    /// Asks for this many hits, at least one.
    Take(u64),
    /// Tests if this many hits would pass; charges nothing. None pass as long as no more than the
    /// limit is used.
    Peek(u64),
    /// Charges this many hits, whatever becomes of them and of the request. They are spent already,
    /// so they may overdraw the limit; they pass if they fit.
    Book(u64),
    /// Takes a slot of a concurrency limit under this id, until it is released or its time is up.
    Hold(u64),
    /// Gives this many hits back. Always passes, creates no state, and stops at a full bucket or an
    /// empty window.
    Refund(u64),
}

impl Hits {
    /// True if hits that pass are charged.
    pub const fn takes(self) -> bool {
        matches!(self, Self::Take(_) | Self::Hold(_))
    }

    /// The hits that must fit for the claim to pass; zero for a refund.
    pub const fn needed(self) -> u64 {
        match self {
            Self::Take(hits) | Self::Peek(hits) | Self::Book(hits) => hits,
            Self::Hold(_) => 1,
            Self::Refund(_) => 0,
        }
    }

    /// The hits that are charged whatever becomes of the claim.
    pub const fn booked(self) -> u64 {
        match self {
            Self::Book(hits) => hits,
            Self::Take(_) | Self::Peek(_) | Self::Hold(_) | Self::Refund(_) => 0,
        }
    }

    /// The hits that are asked for, or given back.
    pub const fn amount(self) -> u64 {
        match self {
            Self::Take(hits) | Self::Book(hits) | Self::Refund(hits) => hits,
            Self::Hold(_) => 1,
            Self::Peek(_) => 0,
        }
    }

    /// The hits that are charged if the claim is.
    pub const fn charged(self) -> Option<u64> {
        match self {
            Self::Take(hits) | Self::Book(hits) => Some(hits),
            Self::Hold(_) => Some(1),
            Self::Peek(_) | Self::Refund(_) => None,
        }
    }
}

/// The numbers of a counter after a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// True if the hits fit.
    pub passed: bool,
    /// Whole hits that would still fit.
    pub remaining: u64,
    /// Whole hits that the counter holds beyond the capacity.
    pub over: u64,
    /// The shortest wait after which the same hits would fit. Zero if they passed; `None` if they
    /// can never fit.
    pub retry_after: Option<Duration>,
    /// The time until no hit counts as used.
    pub reset_after: Duration,
    /// The expiry of the lease that the claim asked for; `None` if it was not granted. The lease is
    /// valid if the charge stands.
    pub leased_until: Option<Timestamp>,
    /// The time of the step on the clock of the store; the epoch where no counter was asked.
    pub at: Timestamp,
}
