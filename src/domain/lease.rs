//! Leases of a token bucket: tokens that a replica takes in advance.
//!
//! Leased tokens are charged when the lease is granted, but may be spent at any time until it ends.
//! The bucket must still keep its promise: in any interval of length t, admitted <= burst + rate *
//! t. Two rules ensure that:
//!
//! * A bucket with O tokens outstanding counts as full no earlier than the refill time of O tokens
//!   from now. This is the floor.
//! * When O shrinks, by expiry or by report, the floor is first written into the state of the
//!   bucket. Otherwise the floor would vanish when the tokens are spent, and the excess would
//!   return.
//!
//! Expiries are rounded to multiples of `ttl` on the store's clock, between one and two `ttl`
//! ahead. Two sums per bucket are therefore enough for any number of replicas, and the leases of a
//! crashed replica expire. The holder stops spending `ttl` after it *sent the request*, on its own
//! clock, which is earlier.
//!
//! This module is arithmetic only. `limiter/layers/leases.rs` decides when to ask for a lease, and
//! of what size.

use std::time::Duration;

use super::Timestamp;
use super::limit::Span;

/// The longest `ttl` in microseconds.
pub const MAX_TTL_US: u64 = 1_000_000;

/// The maximum time a lease may be outstanding, in microseconds.
pub const MAX_OUTSTANDING_US: u64 = 2 * MAX_TTL_US;

/// The request for a lease, attached to a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseAsk {
    /// The tokens to lease after the hits are charged, all or none. 0 only reports `finished`.
    pub tokens: u64,
    /// The maximum of outstanding tokens of the bucket, including these.
    pub most: u64,
    /// The time to spend them, 1 to [`MAX_TTL_US`] microseconds.
    pub ttl: Duration,
    /// An earlier lease whose holder has stopped spending.
    pub finished: Option<Lease>,
}

/// Tokens granted to a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The number of tokens granted.
    pub tokens: u64,
    /// The time until which the store counts them as outstanding.
    pub until: Timestamp,
}

/// The outstanding tokens of a bucket, at most two expiries, measured by the time they take to
/// refill.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outstanding {
    /// The earlier expiry; empty if there is only one.
    pub early: Slot,
    /// The later expiry.
    pub late: Slot,
}

/// Tokens that expire together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Slot {
    /// The expiry.
    pub until: Timestamp,
    /// The time that the tokens take to refill.
    pub tokens: Span,
}

impl Outstanding {
    /// True if no token is outstanding.
    pub(super) fn is_empty(&self) -> bool {
        self.early.tokens == Span::default() && self.late.tokens == Span::default()
    }

    /// The sum of the outstanding tokens.
    pub(super) fn total(&self, rate: u32) -> Span {
        self.early.tokens.plus(self.late.tokens, rate)
    }

    /// Removes the tokens that have expired at `now`. Returns the time until the bucket is full:
    /// `lag`, or more if the floor is higher.
    pub(super) fn expire(&mut self, lag: Span, rate: u32, now: Timestamp) -> Span {
        let mut lag = lag;
        if self.early.has_expired(now) {
            lag = lag.max(self.early.full_in(self.total(rate), now));
            self.early = Slot::default();
        }
        if self.late.has_expired(now) {
            lag = lag.max(self.late.full_in(self.total(rate), now));
            self.late = Slot::default();
        }
        lag.max(self.total(rate))
    }

    /// Removes the tokens of a lease that was reported as finished. The caller has already written
    /// the floor into the state of the bucket.
    pub(super) fn finish(&mut self, until: Timestamp, tokens: Span, rate: u32) {
        if let Some(slot) = [&mut self.early, &mut self.late].into_iter().find(|s| s.until == until)
        {
            slot.tokens = slot.tokens.minus(tokens, rate);
        }
    }

    /// Adds a lease and returns its expiry.
    pub(super) fn add(
        &mut self,
        tokens: Span,
        ttl: Duration,
        rate: u32,
        now: Timestamp,
    ) -> Timestamp {
        let ttl = ttl.as_micros() as u64;
        // After a change to a shorter ttl, the new lease expires with the existing ones: later than
        // needed, which is safe.
        let until = now.floor(ttl).plus_micros(2 * ttl).max(self.late.until);
        if until == self.late.until {
            self.late.tokens = self.late.tokens.plus(tokens, rate);
        } else {
            // A change of the ttl can lead to a third expiry. Then the first is merged into the
            // second.
            let early = Slot { until: self.late.until, tokens: self.total(rate) };
            *self = Self { early, late: Slot { until, tokens } };
        }
        until
    }

    /// Converts the tokens to another rate; empty slots stay empty.
    pub(super) fn map(&self, convert: impl Fn(Span) -> Span) -> Self {
        let slot = |slot: Slot| match slot.tokens {
            none if none == Span::default() => slot,
            tokens => Slot { tokens: convert(tokens), ..slot },
        };
        Self { early: slot(self.early), late: slot(self.late) }
    }

    /// True if an expiry is later than any that could be written at `now`.
    pub(super) fn is_beyond(&self, now: Timestamp) -> bool {
        self.late.until > now.plus_micros(MAX_OUTSTANDING_US)
    }

    /// Clamps the expiries that are [beyond the maximum](Self::is_beyond).
    pub(super) fn clamped(mut self, now: Timestamp) -> Self {
        let latest = now.plus_micros(MAX_OUTSTANDING_US);
        self.early.until = self.early.until.min(latest);
        self.late.until = self.late.until.min(latest);
        self
    }

    /// The whole microsecond at which all outstanding tokens have expired and refilled, if no more
    /// hits are charged.
    pub(super) fn full_at(&self, rate: u32) -> Timestamp {
        let ends = |slot: Slot, tokens: Span| slot.until.plus_micros(tokens.micros);
        ends(self.early, self.total(rate)).max(ends(self.late, self.late.tokens))
    }
}

impl Slot {
    fn has_expired(&self, now: Timestamp) -> bool {
        self.tokens != Span::default() && self.until <= now
    }

    /// The time until a bucket is full that cannot be full earlier than `outstanding` after this
    /// expiry.
    fn full_in(&self, outstanding: Span, now: Timestamp) -> Span {
        match self.until.plus_micros(outstanding.micros).checked_micros_since(now) {
            Some(micros) => Span { micros, remainder: outstanding.remainder },
            None => Span::default(),
        }
    }
}
