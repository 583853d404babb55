//! The sliding window as a log of runs. A run counts in full until its newest hit is one period
//! old.
//!
//! Promise: in any window of one period, admitted <= limit. A denial lasts at most one slot longer
//! than with a log of every hit. For limits with no more hits than slots it is the log of every
//! hit.
//!
//! Letters: n requests per period P, k slots, run width w (see [`Limit::run_width`]), c hits.

use std::time::Duration;

use super::amend::{Change, Told};
use super::limit::{Algorithm, Limit};
use super::reading::{Hits, Reading};
use super::{SATURATION, Timestamp};

/// Hits that leave the window together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// The time of its newest hit.
    pub newest: Timestamp,
    /// The number of hits, at least one.
    pub hits: u64,
}

/// The runs of a window, at most one more than the limit has slots.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WindowLog {
    /// Oldest first.
    pub runs: Vec<Run>,
}

impl WindowLog {
    pub(super) fn empty_at(&self, limit: &Limit) -> Timestamp {
        self.runs
            .last()
            .map_or(Timestamp::EPOCH, |run| run.newest.plus_micros(limit.period_micros()))
    }

    /// Clamps the log after the clock stepped back: the newest run moves to now, and the distances
    /// between runs stay.
    pub(super) fn clamp_to_clock(&mut self, now: Timestamp) {
        let ahead = self.runs.last().map_or(0, |run| run.newest.micros_since(now));
        if ahead > 0 {
            self.runs.iter_mut().for_each(|run| run.newest = run.newest.minus_micros(ahead));
        }
    }

    /// The runs still in the window.
    fn live(&self, limit: &Limit, now: Timestamp) -> &[Run] {
        self.runs.get(self.gone(limit, now)..).unwrap_or_default()
    }

    /// The number of runs that have left the window.
    fn gone(&self, limit: &Limit, now: Timestamp) -> usize {
        let gone = |run: &&Run| run.newest.plus_micros(limit.period_micros()) <= now;
        self.runs.iter().take_while(gone).count()
    }

    /// Drops the runs that have left the window.
    fn slide(&mut self, limit: &Limit, now: Timestamp) {
        self.runs.drain(..self.gone(limit, now));
    }

    /// Charges `hits` at a time that is not before the newest run.
    fn charge(&mut self, limit: &Limit, hits: u64, at: Timestamp) {
        let width = limit.run_width();
        let full = self.runs.len() > slots(limit);
        match self.runs.last_mut() {
            Some(run) if full || run.newest.floor(width) == at.floor(width) => {
                run.newest = at;
                run.hits += hits;
            }
            _ => self.runs.push(Run { newest: at, hits }),
        }
    }

    /// Refunds the oldest runs first. Refunding the newest would empty the window sooner and
    /// over-admit.
    fn refund(&mut self, hits: u64) {
        self.refund_from(Timestamp::EPOCH, hits);
    }

    /// Refunds the runs whose newest hit is not before `since`, the oldest first. Returns the hits
    /// that were refunded.
    fn refund_from(&mut self, since: Timestamp, hits: u64) -> u64 {
        let mut left = hits;
        for run in self.runs.iter_mut().skip_while(|run| run.newest < since) {
            let given = run.hits.min(left);
            run.hits -= given;
            left -= given;
        }
        self.runs.retain(|run| run.hits > 0);
        hits - left
    }
}

/// The time at which `hits` more fit into a window of these runs, if no other hits are charged.
fn fits_at(runs: &[Run], limit: &Limit, hits: u64) -> Timestamp {
    let mut left = total(runs);
    for run in runs {
        left -= run.hits;
        if left.saturating_add(hits) <= limit.capacity() {
            return run.newest.plus_micros(limit.period_micros());
        }
    }
    Timestamp::EPOCH
}

fn total(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.hits).sum()
}

/// Decides and charges one claim. No runs is an empty window. Runs that have left the window are
/// dropped with the next write.
pub(super) fn step(state: &mut WindowLog, limit: &Limit, hits: Hits, now: Timestamp) -> Reading {
    let used = total(state.live(limit, now));
    let passed = match hits {
        Hits::Refund(given) => {
            state.slide(limit, now);
            state.refund(given);
            true
        }
        Hits::Take(_) | Hits::Peek(_) | Hits::Hold(_) => {
            let charged = used.saturating_add(hits.needed()).min(SATURATION);
            let passed = charged <= limit.capacity();
            let charges = passed || limit.always_charges();
            if charges && hits.takes() && charged > used {
                state.slide(limit, now);
                state.charge(limit, charged - used, now);
            }
            passed
        }
        Hits::Book(booked) => {
            let fitting = bookable(limit, used, booked);
            if fitting > 0 {
                state.slide(limit, now);
                state.charge(limit, fitting, now);
            }
            used.saturating_add(booked) <= limit.capacity()
        }
    };
    let live = state.live(limit, now);
    let fits_in = if passed { 0 } else { fits_at(live, limit, hits.needed()).micros_since(now) };
    let empty_in = state.empty_at(limit).micros_since(now);
    reading(limit, hits, passed, total(live), fits_in, empty_in)
}

/// The reading of a window that holds `total` hits, has room for the same hits in `fits_in`
/// microseconds and is empty in `empty_in` microseconds.
pub fn reading(
    limit: &Limit,
    hits: Hits,
    passed: bool,
    total: u64,
    fits_in: u64,
    empty_in: u64,
) -> Reading {
    Reading {
        passed,
        remaining: limit.capacity().saturating_sub(total),
        over: total.saturating_sub(limit.capacity()),
        retry_after: if passed {
            Some(Duration::ZERO)
        } else {
            (hits.needed() <= limit.capacity()).then(|| Duration::from_micros(fits_in))
        },
        reset_after: Duration::from_micros(empty_in),
        leased_until: None,
        at: Timestamp::EPOCH,
    }
}

/// Applies an amendment. Returns the hits that were given back or charged.
///
/// Given back are hits of the oldest run that can hold those of the charge, then of newer runs: a
/// run's newest hit only moves on. Told hits go to the oldest run that leaves the window no earlier
/// than they do.
pub(super) fn amend(state: &mut WindowLog, limit: &Limit, change: &Change, now: Timestamp) -> u64 {
    let is_live = |at: Timestamp| at.plus_micros(limit.period_micros()) > now;
    match *change {
        Change::GiveBack { hits, charged_at } | Change::Return { hits, charged_at }
            if hits > 0 && is_live(charged_at) =>
        {
            if !state.live(limit, now).iter().any(|run| run.newest >= charged_at) {
                return 0;
            }
            state.slide(limit, now);
            state.refund_from(charged_at, hits)
        }
        Change::Charge { hits } => {
            let used = total(state.live(limit, now));
            let hits = hits.min(SATURATION.saturating_sub(used));
            if hits > 0 {
                state.slide(limit, now);
                state.charge(limit, hits, now);
            }
            hits
        }
        Change::Tell(Told::Sliding { hits, age }) if is_live(now.minus_micros(age)) => {
            let at = now.minus_micros(age);
            let used = total(state.live(limit, now));
            let hits = if limit.settles() {
                bookable(limit, used, hits)
            } else {
                hits.min(limit.capacity().saturating_sub(used))
            };
            if hits > 0 {
                state.slide(limit, now);
                match state.runs.iter_mut().find(|run| run.newest >= at) {
                    Some(run) => run.hits += hits,
                    None => state.charge(limit, hits, at),
                }
            }
            hits
        }
        Change::GiveBack { .. }
        | Change::Return { .. }
        | Change::Release { .. }
        | Change::ReleaseOldest
        | Change::ReturnOldest { .. }
        | Change::ChargeWithoutOldest { .. }
        | Change::Renew { .. }
        | Change::Tell(_) => 0,
    }
}

/// The part of `hits` that can be booked beside `used` ones.
fn bookable(limit: &Limit, used: u64, hits: u64) -> u64 {
    used.saturating_add(hits).min(limit.most_booked(hits)).saturating_sub(used)
}

fn slots(limit: &Limit) -> usize {
    match limit.algorithm() {
        Algorithm::SlidingWindow { slots } => slots as usize,
        Algorithm::TokenBucket { .. } | Algorithm::FixedWindow | Algorithm::Concurrency => 1,
    }
}
