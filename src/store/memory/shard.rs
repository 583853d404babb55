//! One shard: a bounded table of counters that never evicts a counter in use.
//!
//! A counter is dropped only when it is empty. When the shard is full, a new key uses one of a
//! fixed number of overflow counters, chosen by its hash, under its own limit. When such a key
//! later gets its own counter, the new counter starts as a copy of the shared one. A flood of keys
//! therefore neither exhausts memory nor resets a limit; it only makes new keys share counters.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use hashbrown::{DefaultHashBuilder, HashMap, hash_table::Entry as Slot};

use super::fingerprint::Fingerprint;
use super::held::{Held, Spare};
use super::index::Index;
use super::slab::{Slab, SlabEntry};
use crate::domain::{Algorithm, Claim, Counter, Limit, Timestamp};

/// Overflow counters per limit, summed over all shards.
const OVERFLOW_PER_LIMIT: usize = 4_096;

/// Maximum number of limits that may overflow at once in one shard.
const MAX_OVERFLOWING_LIMITS: usize = 64;

/// Slab that each insertion checks for empty counters, and the same for a full shard.
const SWEEP_ENTRIES: usize = 4;
const SWEEP_ENTRIES_WHEN_FULL: usize = 64;

/// The counter that a claim uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CounterRef {
    /// The counter of its own key.
    Own(Fingerprint),
    /// A shared overflow counter.
    Overflow(OverflowKey),
}

/// The key of an overflow counter: a hash of the rule, and the number of the counter. Rates and
/// bursts are not part of it, because a change of them must not start a new counter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct OverflowKey {
    rule: u64,
    slot: usize,
}

/// One of the shards of the memory store.
#[derive(Debug)]
pub(super) struct Shard {
    /// Dense, so that the sweep can walk it with a cursor.
    entries: Slab,
    /// Fingerprint -> position in `entries`.
    index: Index,
    /// The position that the last lookup found. A cache, because a step looks up the same counter
    /// several times.
    found: usize,
    spare: Spare,
    hasher: DefaultHashBuilder,
    overflow: HashMap<OverflowKey, (Counter, Timestamp)>,
    overflow_slots: usize,
    max: usize,
    cursor: usize,
    /// The time of the last sweep of the overflow counters, at most one per second.
    swept_overflow: Timestamp,
}

impl Shard {
    /// Makes one of `shards` shards, for at most `max` keys.
    pub(super) fn new(max: usize, shards: usize) -> Self {
        Self {
            entries: Slab::default(),
            index: Index::default(),
            found: 0,
            spare: Spare::default(),
            hasher: DefaultHashBuilder::default(),
            overflow: HashMap::new(),
            overflow_slots: OVERFLOW_PER_LIMIT.div_ceil(shards),
            max: max.max(1),
            cursor: 0,
            swept_overflow: Timestamp::default(),
        }
    }

    /// The bytes of all counters, estimated.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes() + self.index.bytes() + self.overflow.allocation_size()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.overflow.len()
    }

    /// Changes the counter of a key that has one of its own, with one search; none: it has not. The
    /// same as [`take`](Self::take) and [`put`](Self::put).
    pub(super) fn step<T>(
        &mut self,
        print: Fingerprint,
        claim: &Claim,
        now: Timestamp,
        change: impl FnOnce(&mut Counter) -> T,
    ) -> Option<T> {
        let at = self.find(print)?;
        let entry = self.entries.get_mut(at)?;
        let mut counter = entry.held.counter(&mut self.spare);
        let result = change(&mut counter);
        if let Counter::Concurrency(slots) = &mut counter {
            slots.merge(now);
        }
        entry.empty_at = counter.empty_at(&claim.limit);
        if !entry.held.replace(counter, &mut self.spare) {
            self.remove(at);
        }
        Some(result)
    }

    /// Finds the counter of `claim`, or chooses one for it.
    pub(super) fn locate(
        &mut self,
        print: Fingerprint,
        claim: &Claim,
        now: Timestamp,
    ) -> CounterRef {
        if self.find(print).is_some() || self.has_room(now) {
            return CounterRef::Own(print);
        }
        CounterRef::Overflow(self.overflow_key(print, claim))
    }

    /// Returns a working copy of the counter. The caller must pass it to [`Self::put`]; until then
    /// the entry is kept.
    pub(super) fn take(&mut self, at: &CounterRef, claim: &Claim) -> Counter {
        match at {
            CounterRef::Own(print) => {
                let Some(at) = self.find(*print) else { return self.inherited(*print, claim) };
                let Some(entry) = self.entries.get_mut(at) else { return Counter::Empty };
                // No sweep may drop the entry before `put`.
                entry.empty_at = Timestamp::from_micros(u64::MAX);
                entry.held.counter(&mut self.spare)
            }
            CounterRef::Overflow(key) => {
                self.overflow.get_mut(key).map(|(c, _)| std::mem::take(c)).unwrap_or_default()
            }
        }
    }

    /// Writes a counter back; drops it if it is empty. Returns false if there is no room for a new
    /// one.
    pub(super) fn put(
        &mut self,
        at: &CounterRef,
        claim: &Claim,
        mut counter: Counter,
        now: Timestamp,
    ) -> bool {
        if let Counter::Concurrency(slots) = &mut counter {
            slots.merge(now);
        }
        let empty_at = counter.empty_at(&claim.limit);
        match at {
            CounterRef::Own(print) => {
                self.put_own(*print, counter, empty_at);
                true
            }
            CounterRef::Overflow(key) => self.put_overflow(*key, counter, empty_at, now),
        }
    }

    /// Drops the counter of a key. Returns true if it was not empty.
    pub(super) fn forget(&mut self, print: Fingerprint, now: Timestamp) -> bool {
        let Some(at) = self.find(print) else { return false };
        let held = self.entries.get(at).is_some_and(|entry| entry.empty_at > now);
        self.remove(at);
        held
    }

    fn put_own(&mut self, print: Fingerprint, counter: Counter, empty_at: Timestamp) {
        let Some(at) = self.find(print) else {
            if let Some(held) = Held::new(counter, &mut self.spare) {
                self.insert(SlabEntry { print, empty_at, held });
            }
            return;
        };
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.empty_at = empty_at;
        if !entry.held.replace(counter, &mut self.spare) {
            self.remove(at);
        }
    }

    fn insert(&mut self, entry: SlabEntry) {
        let at = self.entries.len();
        let entries = &self.entries;
        let index = self.index.of_mut(entry.print);
        index.insert_unique(entry.print.index, at as u32, |&i| hash_of(entries, i));
        self.entries.push(entry);
    }

    fn put_overflow(
        &mut self,
        key: OverflowKey,
        counter: Counter,
        empty_at: Timestamp,
        now: Timestamp,
    ) -> bool {
        if counter == Counter::Empty {
            self.overflow.remove(&key);
            return true;
        }
        let max = self.overflow_slots * MAX_OVERFLOWING_LIMITS;
        if self.overflow.len() >= max && !self.overflow.contains_key(&key) {
            if now.as_micros() < self.swept_overflow.as_micros().saturating_add(1_000_000) {
                return false;
            }
            self.swept_overflow = now;
            self.overflow.retain(|_, (_, empty_at)| *empty_at > now);
            if self.overflow.len() >= max {
                return false;
            }
        }
        self.overflow.insert(key, (counter, empty_at));
        true
    }

    /// The initial state of a new counter: a copy of the overflow counter that its key may have
    /// used.
    fn inherited(&self, print: Fingerprint, claim: &Claim) -> Counter {
        if self.overflow.is_empty() {
            return Counter::Empty;
        }
        let shared = self.overflow.get(&self.overflow_key(print, claim));
        shared.map(|(counter, _)| counter.clone()).unwrap_or_default()
    }

    fn overflow_key(&self, print: Fingerprint, claim: &Claim) -> OverflowKey {
        let rule = rule_of(&self.hasher, claim);
        OverflowKey { rule, slot: (print.index as usize) % self.overflow_slots }
    }

    /// Sweeps some empty counters. Returns true if there is room for a new one.
    fn has_room(&mut self, now: Timestamp) -> bool {
        self.sweep(SWEEP_ENTRIES, now);
        if self.entries.len() >= self.max {
            self.sweep(SWEEP_ENTRIES_WHEN_FULL, now);
        }
        self.entries.len() < self.max
    }

    fn sweep(&mut self, entries: usize, now: Timestamp) {
        for _ in 0..entries.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            if self.entries.get(self.cursor).is_some_and(|entry| entry.empty_at <= now) {
                self.remove(self.cursor);
            } else {
                self.cursor += 1;
            }
        }
    }

    fn find(&mut self, print: Fingerprint) -> Option<usize> {
        let entries = &self.entries;
        let is_it = |at: usize| entries.get(at).is_some_and(|entry| entry.print == print);
        if !is_it(self.found) {
            let index = self.index.of(print);
            self.found = *index.find(print.index, |&i| is_it(i as usize))? as usize;
        }
        Some(self.found)
    }

    fn remove(&mut self, at: usize) {
        let Some(print) = self.entries.get(at).map(|entry| entry.print) else { return };
        let entries = &self.entries;
        let is_it = |&i: &u32| i as usize == at;
        let index = self.index.of_mut(print);
        if let Slot::Occupied(slot) = index.entry(print.index, is_it, |&i| hash_of(entries, i)) {
            slot.remove();
        }
        self.entries.swap_remove(at);
        if let Some(moved) = self.entries.get(at).map(|entry| entry.print) {
            let last = self.entries.len();
            let index = self.index.of_mut(moved);
            if let Some(i) = index.find_mut(moved.index, |&i| i as usize == last) {
                *i = at as u32;
            }
        }
    }
}

/// Hashes the common parts of the keys of a rule: domain, entry keys and shared patterns, but no
/// values. Includes the algorithm, the slots and the period.
fn rule_of(hasher: &DefaultHashBuilder, claim: &Claim) -> u64 {
    let tag = claim.key.as_bytes().iter().skip_while(|byte| **byte != b'{');
    let mut in_value = false;
    let mut hash = hasher.build_hasher();
    for byte in tag {
        // These characters are escaped inside keys and values.
        in_value = match byte {
            b'=' | b'#' => true,
            b'|' | b'}' => false,
            _ => in_value,
        };
        if !in_value {
            hash.write_u8(*byte);
        }
    }
    let slots = match claim.limit.algorithm() {
        Algorithm::TokenBucket { .. } => 0,
        Algorithm::FixedWindow => 1,
        Algorithm::SlidingWindow { slots } => 1 + slots,
        // More than the most slots of a sliding window.
        Algorithm::Concurrency => 2 + Limit::MAX_SLOTS,
    };
    (slots, claim.limit.period_micros()).hash(&mut hash);
    hash.finish()
}

fn hash_of(entries: &Slab, at: u32) -> u64 {
    entries.get(at as usize).map_or(0, |entry| entry.print.index)
}
