//! The token bucket as GCRA with an exact remainder.
//!
//! Promise: in any interval of length t, admitted <= burst + rate * t.
//!
//! The state is the time at which the bucket will be full, `full_at + remainder / rate` microseconds, and the rate
//! it was written with. Letters: n requests per period P, burst B, c hits, now in microseconds. A hit costs P/n; c hits
//! fit when the bucket, charged with them, is full no later than now + B*P/n.
//!
//! Source: the generic cell rate algorithm of ITU-T I.371; the remainder and the rate change are ours.

use std::time::Duration;

use super::limit::{Limit, Span};
use super::reading::{Hits, Reading};

/// The time at which the bucket is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    /// Whole microseconds since 1970.
    pub full_at: u64,
    /// What is left over, in `rate`-ths of a microsecond; less than `rate`.
    pub remainder: u32,
    /// The requests per period this was written with; at least 1.
    pub rate: u32,
}

impl State {
    pub(super) fn settle(&mut self, limit: &Limit, now: u64) {
        let ahead = self.ahead(limit, now);
        let ceiling = limit.ceiling();
        if ahead > ceiling {
            self.full_at = now + ceiling.micros;
            self.remainder = ceiling.remainder as u32;
            self.rate = limit.requests();
        }
    }

    fn full_in(lag: Span, limit: &Limit, now: u64) -> Option<Self> {
        let remainder = lag.remainder as u32;
        let state = Self { full_at: now + lag.micros, remainder, rate: limit.requests() };
        (lag != Span::default()).then_some(state)
    }

    /// How far ahead of now the bucket will be full, at the rate of `limit`.
    fn ahead(&self, limit: &Limit, now: u64) -> Span {
        let Some(ahead) = self.full_at.checked_sub(now) else { return Span::default() };
        if self.rate == limit.requests() {
            Span { micros: ahead, remainder: self.remainder.into() }
        } else {
            Span { micros: at_new_rate(ahead, self, limit.requests()), remainder: 0 }
        }
    }

    /// The first whole microsecond at which the bucket is full.
    pub(super) fn empty_at(&self) -> u64 {
        self.full_at.saturating_add(u64::from(self.remainder > 0))
    }
}

/// One step; no state is a full bucket.
pub(super) fn step(state: &mut Option<State>, limit: &Limit, hits: Hits, now: u64) -> Reading {
    let mut lag = state.as_ref().map_or_else(Span::default, |state| state.ahead(limit, now));
    let passed = match hits {
        Hits::Refund(given) => {
            lag = minus(lag, limit.cost(given), limit.requests());
            *state = State::full_in(lag, limit, now);
            true
        }
        Hits::Take(_) | Hits::Peek => {
            let charged = plus(lag, limit.cost(hits.needed()), limit.requests());
            let passed = charged <= limit.full();
            let charges = passed || limit.always_charges();
            if charges && let Hits::Take(_) = hits {
                lag = charged.min(limit.ceiling());
                *state = State::full_in(lag, limit, now);
            }
            passed
        }
    };
    reading(limit, hits, passed, lag)
}

/// What a bucket says that will be full `lag` from now, after `hits` passed or failed.
pub fn reading(limit: &Limit, hits: Hits, passed: bool, lag: Span) -> Reading {
    let (n, period) = (u128::from(limit.requests().max(1)), u128::from(limit.period_micros()));
    let deficit = u128::from(lag.micros) * n + u128::from(lag.remainder);
    let capacity = u128::from(limit.capacity()) * period;
    let remaining = capacity.saturating_sub(deficit) / period;
    let retry_after = if passed {
        Some(Duration::ZERO)
    } else if hits.needed() > limit.capacity() {
        None
    } else {
        let short = (deficit + u128::from(hits.needed()) * period).saturating_sub(capacity);
        Some(Duration::from_micros(short.div_ceil(n) as u64))
    };
    Reading {
        passed,
        remaining: remaining as u64,
        retry_after,
        reset_after: Duration::from_micros(lag.micros.saturating_add(u64::from(lag.remainder > 0))),
    }
}

/// The same number of used hits in time at another rate, rounded up so that hits used stay used.
///
/// In doubles and in this order, because the script does the same.
fn at_new_rate(ahead: u64, state: &State, rate: u32) -> u64 {
    let deficit = ahead as f64 * f64::from(state.rate) + f64::from(state.remainder);
    let micros = deficit / f64::from(rate) * (1.0 + f64::EPSILON * 4.0);
    (micros.floor() as u64).saturating_add(1)
}

fn plus(a: Span, b: Span, rate: u32) -> Span {
    let rate = u64::from(rate);
    let remainder = a.remainder + b.remainder;
    let carry = u64::from(remainder >= rate);
    Span { micros: a.micros + b.micros + carry, remainder: remainder - carry * rate }
}

fn minus(a: Span, b: Span, rate: u32) -> Span {
    if a <= b {
        return Span::default();
    }
    let borrow = u64::from(a.remainder < b.remainder);
    let remainder = a.remainder + borrow * u64::from(rate) - b.remainder;
    Span { micros: a.micros - b.micros - borrow, remainder }
}
