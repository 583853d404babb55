//! Leases of a token bucket: tokens that a replica takes before it spends them.
//!
//! Taken tokens are charged at once but may be spent at any moment until the lease ends. To keep the bucket's promise (in
//! any interval of length t, admitted <= burst + rate * t) a bucket with O tokens outstanding counts as full no earlier than
//! O tokens from now, and whenever O shrinks, at an expiry or at a report, that floor is written into its state first.
//! Without the second half the floor would be forgotten at the moment of the spend, and the excess return.
//!
//! A lease is outstanding until one of two moments on the store's clock, multiples of its `ttl` between one and two of them
//! ahead, so that two counts per bucket are enough for any number of replicas, and those of a crashed one end by
//! themselves. The holder stops spending `ttl` after it *asked*, on its own clock, which is earlier.
//!
//! This is arithmetic only: who asks for a lease, and how large, is decided in `limiter/layers/leases.rs`.

use super::limit::Span;

/// The longest `ttl` in microseconds.
pub const LONGEST_TTL: u64 = 1_000_000;

/// As far ahead of now as a lease may be outstanding.
pub const LONGEST: u64 = 2 * LONGEST_TTL;

/// What a claim wants beside its hits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseAsk {
    /// How many tokens to lease once the hits are charged; all of them or none. 0: only to report.
    pub tokens: u64,
    /// How many tokens of the bucket may be outstanding, these included.
    pub most: u64,
    /// How long they may be spent, in microseconds, 1 to [`LONGEST_TTL`].
    pub ttl: u64,
    /// An earlier lease of which no token will be spent any more.
    pub finished: Option<Lease>,
}

/// Tokens that may be spent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease {
    /// How many were granted.
    pub tokens: u64,
    /// Until when the store counts them as outstanding, in microseconds since 1970.
    pub until: u64,
}

/// The tokens outstanding, as the time they take to refill: what expires first, and what expires last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outstanding {
    /// Expires first; nothing when there is only one expiry.
    pub early: Slot,
    /// Expires last.
    pub late: Slot,
}

/// Tokens that expire together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Slot {
    /// When, in microseconds since 1970.
    pub until: u64,
    /// The time they take to refill.
    pub tokens: Span,
}

impl Outstanding {
    /// Whether nothing is outstanding.
    pub(super) fn is_empty(&self) -> bool {
        self.early.tokens == Span::default() && self.late.tokens == Span::default()
    }

    /// All tokens outstanding.
    pub(super) fn total(&self, rate: u32) -> Span {
        self.early.tokens.plus(self.late.tokens, rate)
    }

    /// Lets go what has expired at `now`, and returns how far ahead of now the bucket is full: `lag`, or later.
    pub(super) fn expire(&mut self, lag: Span, rate: u32, now: u64) -> Span {
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

    /// Forgets what was reported; the floor stands in the bucket's state by now.
    pub(super) fn finish(&mut self, until: u64, tokens: Span, rate: u32) {
        if let Some(slot) = [&mut self.early, &mut self.late].into_iter().find(|s| s.until == until)
        {
            slot.tokens = slot.tokens.minus(tokens, rate);
        }
    }

    /// Adds a lease, and returns until when it is outstanding.
    pub(super) fn add(&mut self, tokens: Span, ttl: u64, rate: u32, now: u64) -> u64 {
        // A shorter ttl than that of what is there: outstanding for longer than needed.
        let until = (now - now % ttl + 2 * ttl).max(self.late.until);
        if until == self.late.until {
            self.late.tokens = self.late.tokens.plus(tokens, rate);
        } else {
            // Of three expiries, which takes a change of the ttl, the first joins the second.
            let early = Slot { until: self.late.until, tokens: self.total(rate) };
            *self = Self { early, late: Slot { until, tokens } };
        }
        until
    }

    /// The same tokens, where there are any, as `convert` has them at another rate.
    pub(super) fn map(&self, convert: impl Fn(Span) -> Span) -> Self {
        let slot = |slot: Slot| match slot.tokens {
            none if none == Span::default() => slot,
            tokens => Slot { tokens: convert(tokens), ..slot },
        };
        Self { early: slot(self.early), late: slot(self.late) }
    }

    /// Whether it lasts longer than what could be written at `now`.
    pub(super) fn is_beyond(&self, now: u64) -> bool {
        self.late.until > now + LONGEST
    }

    /// The same, with what [is beyond](Self::is_beyond) pulled back.
    pub(super) fn settled(mut self, now: u64) -> Self {
        let latest = now + LONGEST;
        self.early.until = self.early.until.min(latest);
        self.late.until = self.late.until.min(latest);
        self
    }

    /// The whole microsecond by which all that is outstanding has expired and refilled, nothing else being taken.
    pub(super) fn full_at(&self, rate: u32) -> u64 {
        let ends = |slot: Slot, tokens: Span| slot.until.saturating_add(tokens.micros);
        ends(self.early, self.total(rate)).max(ends(self.late, self.late.tokens))
    }
}

impl Slot {
    fn has_expired(&self, now: u64) -> bool {
        self.tokens != Span::default() && self.until <= now
    }

    /// How far ahead of now a bucket is full that could not be full earlier than `outstanding` after the expiry.
    fn full_in(&self, outstanding: Span, now: u64) -> Span {
        match (self.until + outstanding.micros).checked_sub(now) {
            Some(micros) => Span { micros, remainder: outstanding.remainder },
            None => Span::default(),
        }
    }
}
