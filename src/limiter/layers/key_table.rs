//! An 8-way set-associative cache of what this process remembers of single counters and their
//! limits.
//!
//! A key belongs to one set of eight lines, under a lock of its own; a newcomer evicts the line
//! that ends first. So the table does not grow, needs no sweep, and no operation looks at more than
//! eight lines. What it holds may be lost at any moment: its users must be right without. The locks
//! are many and chosen by key: a core writes that of the counter it decides on, which is a shared
//! write only for a counter that several cores decide on at once.
//!
//! Each value is as of a time: a key that was removed takes no value from before. The time of the
//! last removal is kept for a whole set, so the other keys of the set may be refused a value from
//! before too.

use std::hash::BuildHasher as _;

use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{Key, Limit};

/// Lines of a set.
const LINES: usize = 8;

/// A value that may be forgotten.
pub(super) trait Fleeting {
    /// From when on it is of no use.
    fn ends(&self) -> Instant;
}

/// Values by counter key and limit.
#[derive(Debug)]
pub(super) struct KeyTable<T> {
    /// Seeded at random, so that nobody can choose keys that meet in one set.
    hasher: DefaultHashBuilder,
    sets: Box<[Mutex<Set<T>>]>,
}

#[derive(Debug)]
struct Set<T> {
    lines: Vec<Line<T>>,
    /// The time at which a key was last removed.
    removed_at: Option<Instant>,
}

#[derive(Debug)]
struct Line<T> {
    hash: u64,
    key: Key,
    limit: Limit,
    value: T,
}

impl<T: Fleeting> KeyTable<T> {
    /// A table of about `max_keys` lines, at least eight.
    pub(super) fn new(max_keys: usize) -> Self {
        let sets = max_keys.div_ceil(LINES).max(1);
        Self {
            hasher: DefaultHashBuilder::default(),
            sets: (0..sets).map(|_| Mutex::default()).collect(),
        }
    }

    /// Applies `act` to the value of `key`, if there is one for the same limit.
    pub(super) fn with<R>(
        &self,
        key: &Key,
        limit: &Limit,
        act: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let hash = self.hasher.hash_one(key.as_bytes());
        let mut set = self.set(hash)?.lock();
        let line = set.lines.iter_mut().find(|line| line.is_of(hash, key))?;
        (line.limit == *limit).then(|| act(&mut line.value))
    }

    /// Applies `act` to the value of `key`, whatever its limit. Returns true if there is one.
    pub(super) fn update(&self, key: &Key, limit: &Limit, act: impl FnOnce(&mut T)) -> bool {
        let hash = self.hasher.hash_one(key.as_bytes());
        let Some(set) = self.set(hash) else { return false };
        let mut set = set.lock();
        let Some(line) = set.lines.iter_mut().find(|line| line.is_of(hash, key)) else {
            return false;
        };
        line.limit = *limit;
        act(&mut line.value);
        true
    }

    /// Remembers `value`, which is as of `at`, instead of what there was of `key`; not if the key
    /// was removed since. Returns true if a value is lost by it: that of another key, or this one.
    pub(super) fn put(&self, key: &Key, limit: &Limit, value: T, at: Instant) -> bool {
        let hash = self.hasher.hash_one(key.as_bytes());
        let Some(set) = self.set(hash) else { return true };
        let mut set = set.lock();
        if set.removed_at.is_some_and(|removed_at| at <= removed_at) {
            return true;
        }
        let lines = &mut set.lines;
        let line = Line { hash, key: key.clone(), limit: *limit, value };
        let known = lines.iter().position(|line| line.is_of(hash, key));
        let taken = known.or_else(|| if lines.len() < LINES { None } else { first_to_end(lines) });
        match taken.and_then(|i| lines.get_mut(i)) {
            Some(other) => *other = line,
            None => lines.push(line),
        }
        taken.is_some()
    }

    /// Takes up to `count` values of keys for which `wanted` holds, in turn.
    pub(super) fn take(&self, count: usize, wanted: impl Fn(&Key) -> bool) -> Vec<(Key, Limit, T)> {
        let mut taken = Vec::new();
        for set in &self.sets {
            let room = count - taken.len();
            if room == 0 {
                break;
            }
            let lines = &mut set.lock().lines;
            let lines = lines.extract_if(.., |line| wanted(&line.key)).take(room);
            taken.extend(lines.map(|line| (line.key, line.limit, line.value)));
        }
        taken
    }

    /// Forgets the value of `key` if `gone` holds for it. Returns true if it was forgotten.
    pub(super) fn remove_if(&self, key: &Key, gone: impl FnOnce(&T) -> bool) -> bool {
        let hash = self.hasher.hash_one(key.as_bytes());
        let Some(set) = self.set(hash) else { return false };
        let mut set = set.lock();
        let Some(i) = set.lines.iter().position(|line| line.is_of(hash, key)) else { return false };
        let goes = set.lines.get(i).is_some_and(|line| gone(&line.value));
        if goes {
            set.lines.swap_remove(i);
        }
        goes
    }

    /// Forgets what there is of `key`, and what comes later and is as of `at` or before.
    pub(super) fn remove(&self, key: &Key, at: Instant) {
        self.outdate(key, at, |lines, i| drop(lines.swap_remove(i)));
    }

    /// Applies `act` to what there is of `key`, and forgets what comes later and is as of `at` or
    /// before.
    pub(super) fn supersede(&self, key: &Key, at: Instant, act: impl FnOnce(&mut T)) {
        let act = |lines: &mut Vec<Line<T>>, i: usize| {
            if let Some(line) = lines.get_mut(i) {
                act(&mut line.value);
            }
        };
        self.outdate(key, at, act);
    }

    fn outdate(&self, key: &Key, at: Instant, act: impl FnOnce(&mut Vec<Line<T>>, usize)) {
        let hash = self.hasher.hash_one(key.as_bytes());
        let Some(set) = self.set(hash) else { return };
        let mut set = set.lock();
        set.removed_at = set.removed_at.max(Some(at));
        if let Some(i) = set.lines.iter().position(|line| line.is_of(hash, key)) {
            act(&mut set.lines, i);
        }
    }

    fn set(&self, hash: u64) -> Option<&Mutex<Set<T>>> {
        self.sets.get((hash >> 32) as usize % self.sets.len())
    }
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), removed_at: None }
    }
}

impl<T> Line<T> {
    fn is_of(&self, hash: u64, key: &Key) -> bool {
        self.hash == hash && self.key == *key
    }
}

fn first_to_end<T: Fleeting>(set: &[Line<T>]) -> Option<usize> {
    set.iter().enumerate().min_by_key(|(_, line)| line.value.ends()).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Algorithm, Charge};

    fn limit(requests: u32) -> Limit {
        let period = Duration::from_secs(1);
        Limit::new(requests, period, Algorithm::FixedWindow, Charge::Admitted).unwrap()
    }

    fn key(i: u32) -> Key {
        Key::new(i.to_string().into_bytes())
    }

    impl<T: Copy> Fleeting for (T, Instant) {
        fn ends(&self) -> Instant {
            self.1
        }
    }

    #[test]
    fn value_belongs_to_key_and_limit() {
        let (table, now) = (KeyTable::new(100), Instant::now());
        let value = |key, requests| table.with(&key, &limit(requests), |(value, _)| *value);
        table.put(&key(1), &limit(1), ("old", now), now);
        table.put(&key(1), &limit(1), ("new", now), now);
        assert_eq!(value(key(1), 1), Some("new"));
        assert_eq!(value(key(1), 2), None);
        assert_eq!(value(key(2), 1), None);
        table.put(&key(1), &limit(2), ("other limit", now), now);
        assert_eq!(value(key(1), 1), None);
        table.remove(&key(1), now);
        assert_eq!(value(key(1), 2), None);
    }

    #[test]
    fn removed_key_takes_no_value_from_before() {
        let (table, start) = (KeyTable::new(100), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let value = || table.with(&key(1), &limit(1), |(value, _)| *value);
        table.remove(&key(1), at(2));
        table.remove(&key(1), at(1));
        table.put(&key(1), &limit(1), ("before", at(9)), at(1));
        table.put(&key(1), &limit(1), ("at once", at(9)), at(2));
        assert_eq!(value(), None);
        table.put(&key(1), &limit(1), ("after", at(9)), at(3));
        assert_eq!(value(), Some("after"));
        table.supersede(&key(1), at(4), |(value, _)| *value = "superseded");
        table.put(&key(1), &limit(1), ("before", at(9)), at(4));
        assert_eq!(value(), Some("superseded"));
    }

    #[test]
    fn no_more_values_are_taken_than_are_wanted() {
        // So many sets that none is full.
        let (table, now) = (KeyTable::new(10_000), Instant::now());
        for i in 0..50 {
            table.put(&key(i), &limit(1), (i, now), now);
        }
        let mut all: Vec<u32> = Vec::new();
        for wanted in [7, 7, 30] {
            let taken = table.take(wanted, |_| true);
            assert_eq!(taken.len(), wanted);
            all.extend(taken.into_iter().map(|(_, _, (value, _))| value));
        }
        all.extend(table.take(100, |_| true).into_iter().map(|(_, _, (value, _))| value));
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert!(table.take(1, |_| true).is_empty());
    }

    #[test]
    fn full_table_keeps_what_ends_last() {
        let (table, now) = (KeyTable::new(64), Instant::now());
        for i in 0..10_000 {
            table.put(&key(i), &limit(1), (i, now + Duration::from_secs(i.into())), now);
        }
        let kept: Vec<_> =
            (0..10_000).filter(|i| table.with(&key(*i), &limit(1), |_| ()).is_some()).collect();
        assert!(kept.len() <= 64, "{}", kept.len());
        assert!(kept.contains(&9_999) && kept.iter().all(|i| *i > 5_000), "{kept:?}");
    }
}
