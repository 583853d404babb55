//! One shard: a bounded table of counters that never forgets a counter in use.
//!
//! A counter leaves only when it is empty again. A new key that finds no room shares one of a fixed number of
//! overflow counters, chosen by its hash, with its own limit's numbers; it gets a counter of its own only by
//! inheriting what the shared one holds. So a flood of keys neither exhausts memory nor resets anybody's limit: it
//! can only make newcomers share.

use hashbrown::{HashMap, HashTable, hash_table::Entry as Slot};

use crate::domain::{Algorithm, Claim, Counter, Key, Timestamp};

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
    Own {
        /// Distinguishes keys; equal hashes still compare keys.
        hash: u64,
    },
    /// A shared one.
    Overflow(OverflowKey),
}

impl Place {
    pub(super) const fn is_own(self) -> bool {
        matches!(self, Self::Own { .. })
    }
}

/// A shared counter: the numbers of the limit and which of its overflow counters.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct OverflowKey {
    algorithm: Algorithm,
    requests: u32,
    period: u64,
    slot: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    hash: u64,
    counter: Counter,
    empty_at: Timestamp,
}

/// A part of the store's counters.
#[derive(Debug)]
pub(super) struct Shard {
    /// Dense, so that sweeping walks it with a cursor.
    entries: Vec<Entry>,
    /// Hash -> position in `entries`.
    index: HashTable<u32>,
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
            entries: Vec::new(),
            index: HashTable::new(),
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
    pub(super) fn place(&mut self, hash: u64, claim: &Claim, now: Timestamp) -> Place {
        let own = Place::Own { hash };
        if self.find(hash, &claim.key).is_some() || self.has_room(now) {
            return own;
        }
        Place::Overflow(self.overflow_key(hash, claim))
    }

    /// Takes the counter out; [`Self::put`] must bring it back.
    pub(super) fn take(&mut self, place: &Place, hash: u64, claim: &Claim) -> Counter {
        match place {
            Place::Own { .. } => match self.find(hash, &claim.key) {
                Some(at) => self
                    .entries
                    .get_mut(at)
                    .map(|e| std::mem::take(&mut e.counter))
                    .unwrap_or_default(),
                None => self.inherited(hash, claim),
            },
            Place::Overflow(key) => {
                self.overflow.get_mut(key).map(|(c, _)| std::mem::take(c)).unwrap_or_default()
            }
        }
    }

    /// Brings a counter back; an empty one is dropped. False: there was no room for a new one.
    pub(super) fn put(
        &mut self,
        place: &Place,
        hash: u64,
        claim: &Claim,
        counter: Counter,
        now: Timestamp,
    ) -> bool {
        let empty_at = counter.empty_at(&claim.limit);
        match place {
            Place::Own { .. } => self.put_own(hash, claim, counter, empty_at),
            Place::Overflow(key) => self.put_overflow(*key, counter, empty_at, now),
        }
    }

    /// Drops the counter of `key`; whether it held something.
    pub(super) fn forget(&mut self, hash: u64, key: &Key, now: Timestamp) -> bool {
        let Some(at) = self.find(hash, key) else { return false };
        let held = self.entries.get(at).is_some_and(|entry| entry.empty_at > now);
        self.remove(at);
        held
    }

    fn put_own(&mut self, hash: u64, claim: &Claim, counter: Counter, empty_at: Timestamp) -> bool {
        match (self.find(hash, &claim.key), counter) {
            (Some(at), Counter::Empty) => self.remove(at),
            (Some(at), counter) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    (entry.counter, entry.empty_at) = (counter, empty_at);
                }
            }
            (None, Counter::Empty) => {}
            (None, counter) => {
                let at = self.entries.len() as u32;
                let entries = &self.entries;
                self.index.insert_unique(hash, at, |&i| hash_of(entries, i));
                self.entries.push(Entry { key: claim.key.clone(), hash, counter, empty_at });
            }
        }
        true
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
    fn inherited(&self, hash: u64, claim: &Claim) -> Counter {
        if self.overflow.is_empty() {
            return Counter::Empty;
        }
        let shared = self.overflow.get(&self.overflow_key(hash, claim));
        shared.map(|(counter, _)| counter.clone()).unwrap_or_default()
    }

    fn overflow_key(&self, hash: u64, claim: &Claim) -> OverflowKey {
        OverflowKey {
            algorithm: claim.limit.algorithm(),
            requests: claim.limit.requests(),
            period: claim.limit.period_micros(),
            slot: (hash as usize) % self.overflow_slots,
        }
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
            if self
                .entries
                .get(self.cursor)
                .is_some_and(|e| e.counter != Counter::Empty && e.empty_at <= now)
            {
                self.remove(self.cursor);
            } else {
                self.cursor += 1;
            }
        }
    }

    fn find(&self, hash: u64, key: &Key) -> Option<usize> {
        let is_it = |&i: &u32| self.entries.get(i as usize).is_some_and(|e| e.key == *key);
        self.index.find(hash, is_it).map(|&i| i as usize)
    }

    fn remove(&mut self, at: usize) {
        let Some(hash) = self.entries.get(at).map(|e| e.hash) else { return };
        let entries = &self.entries;
        if let Slot::Occupied(slot) =
            self.index.entry(hash, |&i| i as usize == at, |&i| hash_of(entries, i))
        {
            slot.remove();
        }
        self.entries.swap_remove(at);
        if let Some(moved) = self.entries.get(at) {
            let last = self.entries.len();
            if let Some(i) = self.index.find_mut(moved.hash, |&i| i as usize == last) {
                *i = at as u32;
            }
        }
    }
}

fn hash_of(entries: &[Entry], at: u32) -> u64 {
    entries.get(at as usize).map_or(0, |entry| entry.hash)
}
