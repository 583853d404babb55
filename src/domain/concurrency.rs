//! Concurrency: at most n holds at a time, each until it is released or its time is up.
//!
//! Promise: never more than n live holds. A hold that nobody releases ends after the time to live
//! of its limit.
//!
//! The state is the set of holds, not their number: a release finds its own hold or nothing. So a
//! release that is repeated, late, or of a request that was denied, changes nothing.
//!
//! Under several limits in turn each decides by its own n over all live holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;
use super::amend::Change;
use super::limit::Limit;
use super::reading::{Hits, Reading};

/// The longest wait that a denial advises: a release may come at any moment.
const MAX_ADVICE: Duration = Duration::from_secs(1);

/// One hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    /// The time from which on it does not count.
    pub until: Timestamp,
    /// Its id.
    pub id: u64,
}

/// The holds on a limit.
///
/// A copy is cheap: a decision that may be undone shares what was there before.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// In the order of their ends.
    held: Arc<VecDeque<Slot>>,
    /// Holds that the decision under way has added, in no order.
    added: Vec<Slot>,
}

impl PartialEq for Slots {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |slots: &Self| {
            let mut all: Vec<(Timestamp, u64)> =
                slots.iter().map(|slot| (slot.until, slot.id)).collect();
            all.sort_unstable();
            all
        };
        sorted(self) == sorted(other)
    }
}

impl Eq for Slots {}

impl FromIterator<Slot> for Slots {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> Self {
        let mut all = Self { held: Arc::default(), added: slots.into_iter().collect() };
        all.merge(Timestamp::EPOCH);
        all
    }
}

impl Slots {
    /// All holds, also those whose time is up.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.held.iter().chain(&self.added)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.added.is_empty()
    }

    /// The bytes that they take beside `self`.
    pub fn heap_bytes(&self) -> usize {
        (self.held.capacity() + self.added.capacity()) * size_of::<Slot>()
    }

    /// The holds that count at `now`.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &Slot> {
        self.iter().filter(move |slot| slot.until > now)
    }

    fn count(&self, now: Timestamp) -> u64 {
        let ended = self.held.partition_point(|slot| slot.until <= now);
        let added = self.added.iter().filter(|slot| slot.until > now).count();
        (self.held.len() - ended + added) as u64
    }

    /// The end of the hold that ends first.
    fn first_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ended = self.held.partition_point(|slot| slot.until <= now);
        let first = self.held.get(ended).map(|slot| slot.until);
        let added = self.added.iter().map(|slot| slot.until).filter(|until| *until > now);
        first.into_iter().chain(added).min()
    }

    /// The time at which none is left.
    pub(super) fn empty_at(&self) -> Timestamp {
        let last = self.held.back().map(|slot| slot.until);
        last.into_iter().chain(self.added.iter().map(|slot| slot.until)).max().unwrap_or_default()
    }

    /// Takes in what a decision has added, and drops what has ended at `now`.
    pub fn merge(&mut self, now: Timestamp) {
        let ended = self.held.front().is_some_and(|slot| slot.until <= now);
        if self.added.is_empty() && !ended {
            return;
        }
        let held = Arc::make_mut(&mut self.held);
        for slot in self.added.drain(..) {
            let at = held.partition_point(|other| other.until <= slot.until);
            held.insert(at, slot);
        }
        while held.front().is_some_and(|slot| slot.until <= now) {
            held.pop_front();
        }
    }

    /// The hold that ends first of those that count at `now`; of several, the one that a sorted set
    /// of Redis has first.
    pub(super) fn oldest(&self, now: Timestamp) -> Option<Slot> {
        let first = self.first_end(now)?;
        let ends = self.held.partition_point(|slot| slot.until < first);
        let near = self.held.range(ends..).take_while(|slot| slot.until == first);
        let near = near.chain(self.added.iter().filter(|slot| slot.until == first));
        near.min_by_key(|slot| slot.id.to_string()).copied()
    }

    /// Removes the hold that ends first.
    fn remove_oldest(&mut self) -> Option<Slot> {
        let oldest = self.oldest(Timestamp::EPOCH)?;
        self.remove(oldest.id, oldest.until)
    }

    /// Removes the hold `id`, which ends at `until` unless it was renewed.
    fn remove(&mut self, id: u64, until: Timestamp) -> Option<Slot> {
        let held = Arc::make_mut(&mut self.held);
        let first = held.partition_point(|slot| slot.until < until);
        let near = held.range(first..).take_while(|slot| slot.until == until);
        let near = near.into_iter().position(|slot| slot.id == id).map(|at| first + at);
        let at = near.or_else(|| held.iter().position(|slot| slot.id == id))?;
        held.remove(at)
    }
}

/// Decides and charges one claim. Hits that are no hold never pass: they could not be released.
pub(super) fn step(state: &mut Slots, limit: &Limit, hits: Hits, now: Timestamp) -> Reading {
    let used = state.count(now);
    let free = used < limit.capacity();
    let passed = match hits {
        Hits::Hold(_) | Hits::Peek(_) => free,
        Hits::Refund(_) => true,
        Hits::Take(_) | Hits::Book(_) => false,
    };
    let mut live = used;
    if let (Hits::Hold(id), true) = (hits, passed) {
        state.added.push(Slot { until: now.plus_micros(limit.period_micros()), id });
        live += 1;
    }
    let ends_in = state.first_end(now).map_or(0, |end| end.micros_since(now));
    reading(limit, passed, live, ends_in)
}

/// The reading of a limit with `live` holds, the first of which ends in `ends_in` microseconds.
pub fn reading(limit: &Limit, passed: bool, live: u64, ends_in: u64) -> Reading {
    let wait = || Duration::from_micros(ends_in).min(MAX_ADVICE);
    Reading {
        passed,
        remaining: limit.capacity().saturating_sub(live),
        over: live.saturating_sub(limit.capacity()),
        retry_after: Some(if passed { Duration::ZERO } else { wait() }),
        reset_after: if live == 0 { Duration::ZERO } else { limit.period() },
        leased_until: None,
        at: Timestamp::EPOCH,
    }
}

/// Applies an amendment. Returns 1 if the hold was live, otherwise 0.
pub(super) fn amend(state: &mut Slots, change: &Change, now: Timestamp) -> u64 {
    state.merge(now);
    match *change {
        Change::Release { id, until } => u64::from(state.remove(id, until).is_some()),
        Change::ReleaseOldest => u64::from(state.remove_oldest().is_some()),
        Change::Renew { id, until, renewed } => {
            let Some(slot) = state.remove(id, until) else { return 0 };
            state.added.push(Slot { until: slot.until.max(renewed), id });
            state.merge(now);
            1
        }
        Change::GiveBack { .. }
        | Change::Return { .. }
        | Change::ReturnOldest { .. }
        | Change::ChargeWithoutOldest { .. }
        | Change::Charge { .. }
        | Change::Tell(_) => 0,
    }
}
