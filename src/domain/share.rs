//! The share of a limit: the numbers by which one of several replicas decides while the store is
//! away.
//!
//! Promise: with right counts, the shares of all replicas together have the rate of the limit, at
//! least its capacity C, and at most max(C, N). What the store admitted before and the shares admit
//! meanwhile is therefore at most twice the promise. `tests/promises/failover.rs` holds that over
//! losses, restarts and lost tellings.
//!
//! Letters: N replicas, capacity C, n requests per period P. A replica gets C div N hits, and one
//! of the first C mod N turns gets one more. Every share has at least one hit, but of a limit of 0.
//! A share of a concurrency limit may have no slot, so all of them have C together.

use super::Timestamp;
use super::counter::Counter;
use super::fixed_window::WindowCount;
use super::limit::{Algorithm, Charge, Limit, Span};
use super::sliding_window::{Run, WindowLog};
use super::token_bucket::Bucket;
use super::windows::Window;

/// The turn of the replica of `rank` among `replicas` at the key of this [slot](super::Key::slot).
/// Each key gives the hits that are left over to other ranks.
pub fn turn(rank: u32, slot: u16, replicas: u32) -> u32 {
    let turn = (u64::from(rank) + u64::from(slot)) % u64::from(replicas.max(1));
    turn as u32
}

impl Limit {
    /// The share of the replica whose [turn](turn()) this is among `replicas`. A limit of 0 stays
    /// as it is. `None` for numbers that cannot be counted exactly, by which nothing may pass.
    ///
    /// A bucket gets a part of the burst and refills at a part of the rate: n hits per N periods,
    /// at most 2^51 microseconds. The time in which it fills stays the same, and so does the part
    /// of it that a state uses, whatever N is. A window gets a part of the hits.
    pub fn share(&self, replicas: u32, turn: u32) -> Option<Self> {
        if self.is_blocked() {
            return Some(*self);
        }
        let replicas = replicas.max(1);
        // Six replicas with one slot each would be six at a time under a limit of one.
        let least = u32::from(!self.is_concurrency());
        let part = |hits: u32| {
            if hits == 0 {
                return 0;
            }
            let more = turn % replicas < hits % replicas;
            (hits / replicas + u32::from(more)).max(least)
        };
        let (requests, algorithm) = match self.algorithm() {
            Algorithm::TokenBucket { burst } => {
                (self.requests(), Algorithm::TokenBucket { burst: part(burst) })
            }
            window => (part(self.requests()), window),
        };
        let debt = |whole: Option<u64>| match whole {
            Some(debt) if debt > 0 => Some((debt / u64::from(replicas)).max(1)),
            whole => whole,
        };
        let charge = match self.charge() {
            Charge::Admitted => Charge::Admitted,
            Charge::Always { max_debt } => Charge::Always { max_debt: debt(max_debt) },
            Charge::Settled { max_debt } => Charge::Settled { max_debt: debt(max_debt) },
            Charge::Held { max_debt } => Charge::Held { max_debt: debt(max_debt) },
        };
        let share = Self::for_each(replicas, requests, self.period(), algorithm, charge).ok()?;
        let share = share.waiting_micros(self.max_wait().as_micros() as u32, replicas);
        Some(self.windows().map_or(share, |windows| share.on(windows)))
    }
}

/// The first state of a share that is used up, by what a replica remembers of the store.
///
/// `until` is on the clock of `now`. A bucket is full again at `until`: that of the store is, too.
/// A window is used up until then. Empty where `until` has passed.
pub fn seed(share: &Limit, until: Timestamp, now: Timestamp) -> Counter {
    let period = share.period_micros();
    let hits = share.capacity();
    if until <= now || hits == 0 {
        return Counter::Empty;
    }
    match share.algorithm() {
        Algorithm::TokenBucket { .. } => {
            let lag = Span { micros: until.micros_since(now), remainder: 0 }.min(share.ceiling());
            Counter::TokenBucket(Bucket {
                full_at: now.plus_micros(lag.micros),
                remainder: lag.remainder as u32,
                rate: share.rate(),
                reach: share.reach(),
                outstanding: None,
            })
        }
        Algorithm::SlidingWindow { .. } => {
            let newest = until.minus_micros(period).min(now);
            Counter::SlidingWindow(WindowLog { runs: vec![Run { newest, hits }] })
        }
        // Denials of it are not remembered.
        Algorithm::Concurrency => Counter::Empty,
        // `until` may be off by a round trip: the nearest edge is meant.
        Algorithm::FixedWindow => {
            let Window { start, end, .. } = share.window(now);
            if until.micros_since(start) < end.micros_since(until) {
                return Counter::Empty;
            }
            Counter::FixedWindow(WindowCount { start, count: hits })
        }
    }
}

#[cfg(test)]
mod tests;
