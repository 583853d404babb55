//! The fixed window: a count per window aligned to the epoch of the store's clock, or to a
//! calendar.
//!
//! Promise: admitted per aligned window <= limit; up to twice that across an edge.

use std::time::Duration;

use super::amend::{Change, Told};
use super::limit::Limit;
use super::reading::{Hits, Reading};
use super::windows::Window;
use super::{SATURATION, Timestamp};

/// The hits counted in one window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowCount {
    /// The start of the window: a multiple of the period since 1970, or an edge of the calendar.
    pub start: Timestamp,
    /// Hits counted in it.
    pub count: u64,
}

impl WindowCount {
    /// Clamps a window that begins later than the next one: the clock has stepped back.
    pub(super) fn clamp_to_clock(&mut self, limit: &Limit, now: Timestamp) {
        self.start = self.start.min(limit.window(now).end);
    }

    pub(super) fn empty_at(&self, limit: &Limit) -> Timestamp {
        limit.end_of(self.start)
    }
}

/// Decides and charges one claim. `None` is an empty window.
pub(super) fn step(
    state: &mut Option<WindowCount>,
    limit: &Limit,
    hits: Hits,
    now: Timestamp,
) -> Reading {
    let Window { start, end, next_end } = limit.window(now);
    let current = state.filter(|state| state.start >= start && state.count > 0);
    let mut window = current.unwrap_or(WindowCount { start, count: 0 });
    let passed = match hits {
        Hits::Refund(given) => {
            window.count = window.count.saturating_sub(given);
            *state = (window.count > 0).then_some(window);
            true
        }
        Hits::Take(_) | Hits::Peek(_) | Hits::Book(_) | Hits::Hold(_) => {
            let charged = window.count.saturating_add(hits.needed()).min(SATURATION);
            let passed = charged <= limit.capacity();
            let charges = match hits {
                Hits::Take(_) | Hits::Hold(_) => passed || limit.always_charges(),
                Hits::Book(_) => true,
                Hits::Peek(_) | Hits::Refund(_) => false,
            };
            if charges {
                window.count = charged;
                *state = Some(window);
            }
            passed
        }
    };
    let ends_at = match limit.windows() {
        None => window.empty_at(limit),
        Some(_) if window.start < end => end,
        Some(_) => next_end,
    };
    let ends_in = ends_at.micros_since(now);
    reading(limit, hits, passed, window.count, ends_in)
}

/// Applies an amendment. Returns the hits that were given back or charged.
///
/// Only the window that `now` is in changes: another one counts other hits.
pub(super) fn amend(
    state: &mut Option<WindowCount>,
    limit: &Limit,
    change: &Change,
    now: Timestamp,
) -> u64 {
    let Window { start, end, .. } = limit.window(now);
    // A window ahead dates from before the clock stepped back. What is charged now counts in it.
    let ahead = state.filter(|state| state.start > start);
    if ahead.is_some() && !matches!(change, Change::Charge { .. }) {
        return 0;
    }
    let start = ahead.map_or(start, |ahead| ahead.start);
    let before = state.filter(|state| state.start == start).map_or(0, |state| state.count);
    let count = match *change {
        Change::GiveBack { hits, charged_at } | Change::Return { hits, charged_at }
            if charged_at <= now && charged_at >= start =>
        {
            before.saturating_sub(hits)
        }
        Change::Tell(Told::Fixed { hits, ends_at }) if ends_at == end => {
            let most = if limit.settles() { SATURATION } else { limit.capacity() };
            before.saturating_add(hits).min(most).max(before)
        }
        Change::Charge { hits } => before.saturating_add(hits).min(SATURATION).max(before),
        Change::GiveBack { .. }
        | Change::Return { .. }
        | Change::Release { .. }
        | Change::ReleaseOldest
        | Change::ReturnOldest { .. }
        | Change::ChargeWithoutOldest { .. }
        | Change::Renew { .. }
        | Change::Tell(_) => return 0,
    };
    if count != before {
        *state = (count > 0).then_some(WindowCount { start, count });
    }
    count.abs_diff(before)
}

/// The reading of a window that holds `count` hits and ends in `ends_in` microseconds.
pub fn reading(limit: &Limit, hits: Hits, passed: bool, count: u64, ends_in: u64) -> Reading {
    let ends_in = Duration::from_micros(ends_in);
    Reading {
        passed,
        remaining: limit.capacity().saturating_sub(count),
        over: count.saturating_sub(limit.capacity()),
        retry_after: if passed {
            Some(Duration::ZERO)
        } else {
            (hits.needed() <= limit.capacity()).then_some(ends_in)
        },
        reset_after: if count == 0 { Duration::ZERO } else { ends_in },
        leased_until: None,
        at: Timestamp::EPOCH,
    }
}
