//! The token bucket as GCRA with an exact remainder.
//!
//! Promise: in any interval of length t, admitted <= burst + rate * t.
//!
//! Several limits may act on one bucket, for example during a roll-out. The bucket drains at the
//! rate with which it was last written, so the largest limit bounds all admissions together
//! (largest burst + largest rate * t). A smaller limit decides by at most its own ceiling. It never
//! clamps the state; only a step back of the clock does. Once all requests use one limit, the bound
//! of that limit holds.
//!
//! The state is the time at which the bucket will be full, `full_at + remainder / rate`
//! microseconds, with the rate and the reach of the limit that wrote it.
//!
//! Letters: n requests per period P, burst B, c hits, now in microseconds. A hit costs P/n. c hits
//! fit if the bucket, charged with them, is full no later than now + B*P/n. Hits that may wait:
//! `limit/wait.rs`.
//!
//! Source: the generic cell rate algorithm (GCRA) of ITU-T I.371. The remainder and the conversion
//! between rates are additions.

use std::time::Duration;

use super::amend::{Change, Told};
use super::lease::{LeaseAsk, Outstanding};
use super::limit::{Limit, Reach, Span};
use super::reading::{Hits, Reading};
use super::{SATURATION, Timestamp};

/// A bucket, as the time at which it is full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bucket {
    /// The time, rounded down to whole microseconds.
    pub full_at: Timestamp,
    /// The fraction in `rate`-ths of a microsecond; less than `rate`.
    pub remainder: u32,
    /// The requests per period of the limit that wrote the state; at least 1.
    pub rate: u32,
    /// The reach of the limit that wrote the state.
    pub reach: Reach,
    /// Tokens leased to replicas. Boxed, because few buckets have leases.
    pub outstanding: Option<Box<Outstanding>>,
}

impl Bucket {
    /// Clamps a state beyond the reach of its writer: the clock has stepped back. `limit` supplies
    /// the period, and the exact ceiling if it is the writer.
    pub(super) fn clamp_to_clock(&mut self, limit: &Limit, now: Timestamp) {
        let furthest = limit.furthest(self.reach, self.rate);
        if self.ahead(now).is_some_and(|ahead| ahead > furthest) {
            self.full_at = now.plus_micros(furthest.micros);
            self.remainder = furthest.remainder as u32;
        }
        if let Some(outstanding) = self.outstanding.as_mut().filter(|leased| leased.is_beyond(now))
        {
            **outstanding = outstanding.clamped(now);
        }
    }

    /// A bucket that will be full in `lag`. A lag above the ceiling of `limit` was written by a
    /// larger limit, whose reach is `before`.
    fn at(lag: Span, leased: Outstanding, before: Reach, limit: &Limit, now: Timestamp) -> Self {
        Self {
            full_at: now.plus_micros(lag.micros),
            remainder: lag.remainder as u32,
            rate: limit.rate(),
            reach: if lag > limit.ceiling() { before } else { limit.reach() },
            outstanding: (!leased.is_empty()).then(|| Box::new(leased)),
        }
    }

    /// Like [`at`](Self::at); `None` if the bucket is full and has no tokens on lease.
    fn full_in(
        lag: Span,
        leased: Outstanding,
        before: Reach,
        limit: &Limit,
        now: Timestamp,
    ) -> Option<Self> {
        let used = lag != Span::default() || !leased.is_empty();
        used.then(|| Self::at(lag, leased, before, limit, now))
    }

    /// The time until the bucket is full, at the rate it was written with. `None` if it is full.
    fn ahead(&self, now: Timestamp) -> Option<Span> {
        let micros = self.full_at.checked_micros_since(now)?;
        Some(Span { micros, remainder: self.remainder.into() })
    }

    /// The time until the bucket is full and the outstanding tokens, converted to the rate of
    /// `limit`. Up to `now` the bucket refills at the rate it was written with.
    fn view(&self, limit: &Limit, now: Timestamp) -> (Span, Outstanding) {
        let ahead = self.ahead(now);
        let Some(outstanding) = &self.outstanding else {
            let lag = ahead.map_or_else(Span::default, |ahead| self.converted(ahead, limit));
            return (lag, Outstanding::default());
        };
        let mut leased = outstanding.clamped(now);
        let mut lag = leased.expire(ahead.unwrap_or_default(), self.rate, now);
        if ahead.is_some() || lag != Span::default() {
            lag = self.converted(lag, limit);
        }
        (lag, leased.map(|tokens| self.converted(tokens, limit)))
    }

    /// Converts a span of this state to the rate of `limit`. The result is at most [`SATURATION`]
    /// if the rates differ.
    fn converted(&self, span: Span, limit: &Limit) -> Span {
        if self.rate == limit.rate() {
            return span;
        }
        Span { micros: at_new_rate(span, self.rate, limit.rate()), remainder: 0 }
    }

    /// The first whole microsecond at which the bucket is full at every rate and has no tokens on
    /// lease.
    pub(super) fn empty_at(&self) -> Timestamp {
        let leased =
            self.outstanding.as_ref().map_or(Timestamp::EPOCH, |leased| leased.full_at(self.rate));
        // One more microsecond, because a conversion to another rate rounds up at `full_at` itself.
        self.full_at.max(leased).plus_micros(1)
    }
}

/// Decides and charges one claim. `None` is a full bucket.
pub(super) fn step(
    state: &mut Option<Bucket>,
    limit: &Limit,
    hits: Hits,
    ask: Option<&LeaseAsk>,
    now: Timestamp,
) -> Reading {
    let (mut lag, mut leased) =
        state.as_ref().map_or_else(Default::default, |state| state.view(limit, now));
    let before = state.as_ref().map_or_else(|| limit.reach(), |state| state.reach);
    let rate = limit.rate();
    let (mut passed, mut until) = (true, None);
    match hits {
        Hits::Refund(given) => {
            lag = lag.minus(limit.cost(given), rate);
            *state = Bucket::full_in(lag, leased, before, limit, now);
        }
        // A larger limit has charged more than this one can hold: no hit fits, and the debt does
        // not grow.
        Hits::Take(_) | Hits::Peek(_) | Hits::Hold(_) if lag > limit.ceiling() => passed = false,
        Hits::Take(_) | Hits::Peek(_) | Hits::Hold(_) => {
            let charged = lag.plus(limit.price(hits), rate);
            passed = charged <= limit.full();
            let charges = passed || limit.always_charges();
            if charges && hits.takes() {
                lag = charged.min(limit.ceiling());
                if let Some(ask) = ask.filter(|_| passed) {
                    until = lease(&mut lag, &mut leased, limit, ask, now);
                }
                *state = Bucket::full_in(lag, leased, before, limit, now);
            }
        }
        Hits::Book(hits) => {
            let cost = limit.cost(hits);
            passed = lag.plus(cost, rate) <= limit.full();
            let booked = booked(lag, cost, limit);
            if booked > lag {
                lag = booked;
                *state = Bucket::full_in(lag, leased, before, limit, now);
            }
        }
    }
    Reading { leased_until: until, ..reading(limit, hits, passed, lag.min(limit.ceiling())) }
}

/// The lag after hits of this cost are booked: with a debt of at most one capacity, or of the hits
/// themselves if they are more, and never beyond the ceiling. A larger lag stays.
fn booked(lag: Span, cost: Span, limit: &Limit) -> Span {
    let most = limit.full().plus(cost.max(limit.full()), limit.rate()).min(limit.ceiling());
    lag.plus(cost, limit.rate()).min(most).max(lag)
}

/// Ends the lease that `ask` reports as finished. Grants a new one if the bucket has the tokens and
/// the maximum of outstanding tokens permits.
fn lease(
    lag: &mut Span,
    leased: &mut Outstanding,
    limit: &Limit,
    ask: &LeaseAsk,
    now: Timestamp,
) -> Option<Timestamp> {
    let rate = limit.rate();
    if let Some(finished) = ask.finished {
        leased.finish(finished.until, limit.cost(finished.tokens), rate);
    }
    let tokens = limit.cost(ask.tokens);
    let charged = lag.plus(tokens, rate);
    if ask.tokens == 0
        || charged > limit.full()
        || leased.total(rate).plus(tokens, rate) > limit.cost(ask.most)
    {
        return None;
    }
    *lag = charged;
    Some(leased.add(tokens, ask.ttl, rate, now))
}

/// Applies an amendment. Returns the microseconds that were given back or charged, as far as
/// `limit` can hold them.
///
/// Given back is at most what cannot have refilled since the charge. The bucket may have been full
/// meanwhile, and then what has refilled was of other hits. Nothing is given back at another rate,
/// or where replicas hold tokens.
pub(super) fn amend(
    state: &mut Option<Bucket>,
    limit: &Limit,
    change: &Change,
    now: Timestamp,
) -> u64 {
    let (before, leased) =
        state.as_ref().map_or_else(Default::default, |state| state.view(limit, now));
    let reach = state.as_ref().map_or_else(|| limit.reach(), |state| state.reach);
    let rate = limit.rate();
    let after = match *change {
        Change::GiveBack { hits, charged_at } => {
            let plain = |state: &Bucket| state.rate == rate && state.outstanding.is_none();
            let Some(age) = now.checked_micros_since(charged_at) else { return 0 };
            if !state.as_ref().is_some_and(plain) {
                return 0;
            }
            let refilled = Span { micros: age, remainder: 0 };
            before.minus(limit.cost(hits).minus(refilled, rate), rate)
        }
        Change::Tell(Told::Bucket { micros }) if before < limit.ceiling() => {
            let told = Span { micros: micros.min(SATURATION), remainder: 0 };
            let most = if limit.always_charges() { limit.ceiling() } else { limit.full() };
            if limit.settles() {
                booked(before, told, limit)
            } else {
                before.plus(told, rate).min(most).max(before)
            }
        }
        Change::Return { hits, .. } => before.minus(limit.cost(hits), rate),
        Change::Charge { hits } => {
            before.plus(limit.cost(hits), rate).min(limit.ceiling()).max(before)
        }
        Change::Tell(_)
        | Change::Release { .. }
        | Change::ReleaseOldest
        | Change::ReturnOldest { .. }
        | Change::ChargeWithoutOldest { .. }
        | Change::Renew { .. } => return 0,
    };
    if after == before {
        return 0;
    }
    *state = Bucket::full_in(after, leased, reach, limit, now);
    let (before, after) = (before.min(limit.ceiling()), after.min(limit.ceiling()));
    before.minus(after, rate).micros.max(after.minus(before, rate).micros)
}

/// The reading of a bucket that will be full in `lag`, after `hits` passed or failed.
pub fn reading(limit: &Limit, hits: Hits, passed: bool, lag: Span) -> Reading {
    let (n, period) = (u128::from(limit.rate()), u128::from(limit.period_micros()));
    let deficit = u128::from(lag.micros) * n + u128::from(lag.remainder);
    let capacity = u128::from(limit.capacity()) * period;
    let (remaining, over) = left_and_over(deficit, capacity, limit.period_micros());
    let retry_after = if passed {
        Some(Duration::ZERO)
    } else if hits.needed() > limit.capacity() {
        None
    } else {
        let fits = capacity + limit.max_wait().as_micros() * n;
        let short = (deficit + u128::from(hits.needed()) * period).saturating_sub(fits);
        Some(Duration::from_micros(short.div_ceil(n) as u64))
    };
    Reading {
        passed,
        remaining,
        over,
        retry_after,
        reset_after: Duration::from_micros(lag.micros.saturating_add(u64::from(lag.remainder > 0))),
        leased_until: None,
        at: Timestamp::EPOCH,
    }
}

/// Whole hits that fit, and whole hits beyond the capacity. Most buckets need no more than 64 bits,
/// in which a division is one instruction.
fn left_and_over(deficit: u128, capacity: u128, period: u64) -> (u64, u64) {
    if let (Ok(deficit), Ok(capacity)) = (u64::try_from(deficit), u64::try_from(capacity)) {
        let over = deficit.saturating_sub(capacity).div_ceil(period);
        return (capacity.saturating_sub(deficit) / period, over);
    }
    let period = u128::from(period);
    let over = deficit.saturating_sub(capacity).div_ceil(period);
    ((capacity.saturating_sub(deficit) / period) as u64, over as u64)
}

/// Converts a span to another rate for the same number of hits. Rounded up, so that no charged hit
/// is forgiven.
///
/// Computed in doubles and in this order, because the script does the same.
fn at_new_rate(span: Span, written: u32, rate: u32) -> u64 {
    let deficit = span.micros as f64 * f64::from(written) + span.remainder as f64;
    let micros = deficit / f64::from(rate) * (1.0 + f64::EPSILON * 4.0);
    (micros.floor() as u64).saturating_add(1).min(SATURATION)
}
