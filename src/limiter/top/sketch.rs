//! A sketch of the items that are counted most often, over the last one to two minutes, in bounded
//! memory.
//!
//! An item is known by a 64-bit hash and belongs to a rule. The rule has 16 of many sets, and the
//! hash chooses one of them, so that a rule with many items takes no line of most others. A set has
//! a lock of its own, and 16 lines a minute. Of the minutes before, the last one is kept.
//!
//! Each thread has a sketch of its own, and readers merge them.
//!
//! # Algorithm
//! Space-saving, by set and minute:
//! 1. The count of an item that has a line grows by one.
//! 2. While the set has a free line, a new item takes it with count 1.
//! 3. Otherwise the new item takes the line of the smallest count c, with count c + 1 and error c.
//!
//! A line has a description of its item, which is expensive to make: it is made at step 2, and
//! after step 3 when the item is counted again. So a flood of different items makes few of them.
//! Lines without a description are not listed.
//!
//! # Error
//! A line counts an item at least `count - error` times and at most `count` times. The lines of a
//! set and minute add up to its N counts, and an error is a former smallest count of 16 lines:
//! * an error is at most N / 16;
//! * an item that was counted more than N / 16 + 1 times is listed;
//! * counts are exact while the set has a free line.
//!
//! Counts and errors of the two minutes and of all sketches are added, so the bounds are those of
//! all together. An item without a line in one of them was counted there at most as often as the
//! smallest line, or not at all if a line is free. A collision of hashes within a set (1e-12 for
//! 4096 items) would join two items.
//!
//! Source: A. Metwally, D. Agrawal, A. El Abbadi, "Efficient Computation of Frequent and Top-k
//! Elements in Data Streams" (2005); P. K. Agarwal et al., "Mergeable Summaries" (2012).

use std::mem;

use parking_lot::Mutex;

/// Lines of a set and minute.
const LINES: usize = 16;

/// Sets of a rule.
const SETS_PER_RULE: u64 = 16;

/// Items with their counts. Without sets it counts nothing.
#[derive(Debug)]
pub(super) struct Sketch<T> {
    sets: Box<[Mutex<Set<T>>]>,
}

/// An item, counted at least `count - error` times and at most `count` times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Estimate<T> {
    pub(super) item: T,
    pub(super) count: u64,
    pub(super) error: u64,
}

#[derive(Debug)]
struct Set<T> {
    /// The number of the minute that `now` counts.
    minute: u64,
    now: Counts<T>,
    before: Counts<T>,
}

/// The counts of a set in a minute.
#[derive(Clone, Debug)]
struct Counts<T>(Vec<Line<T>>);

#[derive(Clone, Debug)]
struct Line<T> {
    hash: u64,
    count: u64,
    error: u64,
    /// None: not described yet.
    item: Option<T>,
}

impl<T: Clone> Sketch<T> {
    /// Lines for about `items` items a minute; 0: none.
    pub(super) fn new(items: usize) -> Self {
        Self { sets: (0..items.div_ceil(LINES)).map(|_| Mutex::default()).collect() }
    }

    /// True if it counts nothing.
    pub(super) fn is_off(&self) -> bool {
        self.sets.is_empty()
    }

    /// Counts the item of `hash`, of `rule`, in `minute`; `describe` makes its description if it
    /// gets one. In a minute that is over, the item counts in the current one.
    ///
    /// # Concurrency
    /// Takes the lock of the set, and calls `describe` outside of it.
    pub(super) fn count(&self, rule: u64, hash: u64, minute: u64, describe: impl FnOnce() -> T) {
        let Some(set) = self.set(rule, hash) else { return };
        if set.lock().at(minute).now.count(hash) {
            let item = describe();
            set.lock().describe(hash, item);
        }
    }

    fn set(&self, rule: u64, hash: u64) -> Option<&Mutex<Set<T>>> {
        let set = rule.wrapping_add((hash >> 32) % SETS_PER_RULE);
        self.sets.get((set as usize).checked_rem(self.sets.len())?)
    }
}

/// All items of `sketches`, which have equal numbers of sets, with a description, as of `minute`:
/// what that and the one before it counted.
///
/// # Concurrency
/// Takes the lock of one set after the other.
pub(super) fn estimates<'a, T: Clone + 'a>(
    sketches: impl Iterator<Item = &'a Sketch<T>>,
    minute: u64,
) -> Vec<Estimate<T>> {
    let sketches: Vec<_> = sketches.collect();
    let sets = sketches.first().map_or(0, |sketch| sketch.sets.len());
    let mut all = Vec::new();
    for set in 0..sets {
        let mut counts: Vec<Counts<T>> = Vec::new();
        for set in sketches.iter().filter_map(|sketch| sketch.sets.get(set)) {
            let mut locked = set.lock();
            let Set { now, before, .. } = locked.at(minute);
            counts.extend(
                [&*now, &*before].into_iter().filter(|counts| !counts.0.is_empty()).cloned(),
            );
        }
        all.extend(merged(&counts));
    }
    all
}

/// The items of the same set in several sketches and minutes.
fn merged<T: Clone>(counts: &[Counts<T>]) -> impl Iterator<Item = Estimate<T>> {
    let mut hashes: Vec<u64> =
        counts.iter().flat_map(|counts| counts.0.iter().map(|line| line.hash)).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.into_iter().filter_map(move |hash| {
        let item = counts.iter().find_map(|counts| counts.line(hash)?.item.clone())?;
        let each = counts.iter().map(|counts| counts.of(hash));
        let (count, error) = each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Some(Estimate { item, count, error })
    })
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { minute: 0, now: Counts(Vec::new()), before: Counts(Vec::new()) }
    }
}

impl<T: Clone> Set<T> {
    /// The set as of `minute`, without the counts of minutes before the last.
    fn at(&mut self, minute: u64) -> &mut Self {
        if minute > self.minute {
            mem::swap(&mut self.now, &mut self.before);
            self.now.0.clear();
            if minute - self.minute > 1 {
                self.before.0.clear();
            }
            self.minute = minute;
        }
        self
    }

    fn describe(&mut self, hash: u64, item: T) {
        // The minute may have passed since it was counted.
        for Counts(lines) in [&mut self.now, &mut self.before] {
            if let Some(line) = lines.iter_mut().find(|line| line.hash == hash) {
                line.item = Some(item);
                return;
            }
        }
    }
}

impl<T> Counts<T> {
    fn line(&self, hash: u64) -> Option<&Line<T>> {
        self.0.iter().find(|line| line.hash == hash)
    }

    /// Count and error of an item, with a line or without.
    fn of(&self, hash: u64) -> (u64, u64) {
        if let Some(line) = self.line(hash) {
            return (line.count, line.error);
        }
        let smallest = self.0.iter().map(|line| line.count).min();
        let most = smallest.filter(|_| self.0.len() == LINES).unwrap_or_default();
        (most, most)
    }

    /// Counts an item. Returns true if its line is to be described.
    fn count(&mut self, hash: u64) -> bool {
        let lines = &mut self.0;
        if let Some(line) = lines.iter_mut().find(|line| line.hash == hash) {
            line.count += 1;
            return line.item.is_none();
        }
        if lines.len() < LINES {
            lines.push(Line { hash, count: 1, error: 0, item: None });
            return true;
        }
        if let Some(smallest) = lines.iter_mut().min_by_key(|line| line.count) {
            let error = smallest.count;
            *smallest = Line { hash, count: error + 1, error, item: None };
        }
        false
    }
}

#[cfg(test)]
mod tests;
