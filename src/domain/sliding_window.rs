//! The sliding window as a log of runs. A run counts in full until its newest hit is one period
//! old.
//!
//! Promise: in any window of one period, admitted <= limit. A denial lasts at most one slot longer
//! than with a log of every hit. For limits with no more hits than slots it is the log of every
//! hit.
//!
//! Letters: n requests per period P, k slots, run width w (see [`Limit::run_width`]), c hits.

use std::time::Duration;

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

    fn charge(&mut self, limit: &Limit, hits: u64, now: Timestamp) {
        let width = limit.run_width();
        let full = self.runs.len() > slots(limit);
        match self.runs.last_mut() {
            Some(run) if full || run.newest.floor(width) == now.floor(width) => {
                run.newest = now;
                run.hits += hits;
            }
            _ => self.runs.push(Run { newest: now, hits }),
        }
    }

    /// Refunds the oldest runs first. Refunding the newest would empty the window sooner and
    /// over-admit.
    fn refund(&mut self, mut hits: u64) {
        for run in &mut self.runs {
            let given = run.hits.min(hits);
            run.hits -= given;
            hits -= given;
        }
        self.runs.retain(|run| run.hits > 0);
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
        Hits::Take(_) | Hits::Peek => {
            let charged = used.saturating_add(hits.needed()).min(SATURATION);
            let passed = charged <= limit.capacity();
            let charges = passed || limit.always_charges();
            if charges && matches!(hits, Hits::Take(_)) && charged > used {
                state.slide(limit, now);
                state.charge(limit, charged - used, now);
            }
            passed
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
        retry_after: if passed {
            Some(Duration::ZERO)
        } else {
            (hits.needed() <= limit.capacity()).then(|| Duration::from_micros(fits_in))
        },
        reset_after: Duration::from_micros(empty_in),
        leased_until: None,
    }
}

fn slots(limit: &Limit) -> usize {
    match limit.algorithm() {
        Algorithm::SlidingWindow { slots } => slots as usize,
        Algorithm::TokenBucket { .. } | Algorithm::FixedWindow => 1,
    }
}
