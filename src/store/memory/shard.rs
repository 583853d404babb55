//! One shard: a bounded table of counters that never forgets a counter in use.
//!
//! A counter leaves only when it is empty again. A new key that finds no room shares one of a fixed number of
//! overflow counters, chosen by its hash, with its own limit's numbers; it gets a counter of its own only by
//! inheriting what the shared one holds. So a flood of keys neither exhausts memory nor resets anybody's limit: it
//! can only make newcomers share.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use hashbrown::{DefaultHashBuilder, HashMap, hash_table::Entry as Slot};

use super::entries::{Entries, Entry};
use super::fingerprint::Fingerprint;
use super::held::{Held, Spare};
use super::index::Index;
use crate::domain::{Algorithm, Claim, Counter, Timestamp};

/// Overflow counters per limit, over all shards.
const OVERFLOW_PER_LIMIT: usize = 4_096;

/// Different limits that may overflow at once, in one shard.
const OVERFLOWING_LIMITS: usize = 64;

/// Entries looked at for an empty counter at each insertion, and when there is no room.
const SWEEP: usize = 4;
const SWEEP_WHEN_FULL: usize = 64;

/// Which counter a claim uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// The one of its key.
    Own(Fingerprint),
    /// A shared one.
    Overflow(OverflowKey),
}

/// A shared counter: the rule, as far as a key names it, and which of its overflow counters. Not the numbers of the
/// limit: a change of them must not begin a new counter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct OverflowKey {
    rule: u64,
    slot: usize,
}

/// A part of the store's counters.
#[derive(Debug)]
pub(super) struct Shard {
    /// Dense, so that sweeping walks it with a cursor.
    entries: Entries,
    /// Fingerprint -> position in `entries`.
    index: Index,
    /// Where the counter was that was looked for last: a step looks for the same one several times.
    found: usize,
    spare: Spare,
    hasher: DefaultHashBuilder,
    overflow: HashMap<OverflowKey, (Counter, Timestamp)>,
    overflow_slots: usize,
    max: usize,
    cursor: usize,
    /// Overflow counters are swept at most once a second.
    swept_overflow: Timestamp,
}

impl Shard {
    /// A shard for at most `max` keys, one of `shards`.
    pub(super) fn new(max: usize, shards: usize) -> Self {
        Self {
            entries: Entries::default(),
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

    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.overflow.len()
    }

    /// Where the counter of `claim` is, or will be.
    pub(super) fn place(&mut self, print: Fingerprint, claim: &Claim, now: Timestamp) -> Place {
        if self.find(print).is_some() || self.has_room(now) {
            return Place::Own(print);
        }
        Place::Overflow(self.overflow_key(print, claim))
    }

    /// The counter, which stays where it is until [`Self::put`] brings it back; that must follow.
    pub(super) fn take(&mut self, place: &Place, claim: &Claim) -> Counter {
        match place {
            Place::Own(print) => {
                let Some(at) = self.find(*print) else { return self.inherited(*print, claim) };
                let Some(entry) = self.entries.get_mut(at) else { return Counter::Empty };
                // Until it is back no sweep may drop it.
                entry.empty_at = Timestamp::from_micros(u64::MAX);
                entry.held.counter(&mut self.spare)
            }
            Place::Overflow(key) => {
                self.overflow.get_mut(key).map(|(c, _)| std::mem::take(c)).unwrap_or_default()
            }
        }
    }

    /// Brings a counter back; an empty one is dropped. False: there was no room for a new one.
    pub(super) fn put(
        &mut self,
        place: &Place,
        claim: &Claim,
        counter: Counter,
        now: Timestamp,
    ) -> bool {
        let empty_at = counter.empty_at(&claim.limit);
        match place {
            Place::Own(print) => {
                self.put_own(*print, counter, empty_at);
                true
            }
            Place::Overflow(key) => self.put_overflow(*key, counter, empty_at, now),
        }
    }

    /// Drops the counter of a key; whether it held something.
    pub(super) fn forget(&mut self, print: Fingerprint, now: Timestamp) -> bool {
        let Some(at) = self.find(print) else { return false };
        let held = self.entries.get(at).is_some_and(|entry| entry.empty_at > now);
        self.remove(at);
        held
    }

    fn put_own(&mut self, print: Fingerprint, counter: Counter, empty_at: Timestamp) {
        let Some(at) = self.find(print) else {
            if let Some(held) = Held::new(counter, &mut self.spare) {
                self.insert(Entry { print, empty_at, held });
            }
            return;
        };
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.empty_at = empty_at;
        if !entry.held.replace(counter, &mut self.spare) {
            self.remove(at);
        }
    }

    fn insert(&mut self, entry: Entry) {
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
        let max = self.overflow_slots * OVERFLOWING_LIMITS;
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

    /// What a key that gets a counter of its own owes to the shared one it may have used.
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

    /// Whether a new key may have a counter of its own; drops some that are empty again.
    fn has_room(&mut self, now: Timestamp) -> bool {
        self.sweep(SWEEP, now);
        if self.entries.len() >= self.max {
            self.sweep(SWEEP_WHEN_FULL, now);
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

/// A hash of what the keys of one rule have in common: domain, entry keys and shared patterns, but no values; and what
/// the counter is.
fn rule_of(hasher: &DefaultHashBuilder, claim: &Claim) -> u64 {
    let tag = claim.key.as_bytes().iter().skip_while(|byte| **byte != b'{');
    let mut in_value = false;
    let mut hash = hasher.build_hasher();
    for byte in tag {
        // All three are escaped where they are part of a key or a value.
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
    };
    (slots, claim.limit.period_micros()).hash(&mut hash);
    hash.finish()
}

fn hash_of(entries: &Entries, at: u32) -> u64 {
    entries.get(at as usize).map_or(0, |entry| entry.print.index)
}
