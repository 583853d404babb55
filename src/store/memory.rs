//! The store in the memory of the process: sharded and bounded.
//!
//! It runs [`Group::decide`] under the locks of the shards that a group touches, and does no I/O.
//! Counters live as long as the process; other replicas do not see them.
//!
//! A counter stores a fingerprint of its key, not the key. It takes about 65 bytes; a sliding
//! window with 10 slots takes up to about 140.

mod fingerprint;
mod held;
mod index;
mod settled;
mod shard;
mod slab;

use parking_lot::{Mutex, MutexGuard};

use self::fingerprint::{Fingerprint, Fingerprints};
use self::settled::SettledHolds;
use self::shard::{CounterRef, Shard};
use super::{Answer, Deadline, LimitStore, StoreError};
use crate::domain::{
    Amendment, Claim, Clock, Commit, Counter, Group, Hits, Key, Limit, Reading, Sequence, Settled,
    Settlement, Timestamp,
};

/// Maximum number of shards. More than cores, to keep lock contention low.
const MAX_SHARDS: usize = 64;

/// Minimum number of keys per shard.
const MIN_KEYS_PER_SHARD: usize = 64;

/// Counters in the memory of this process.
#[derive(Debug)]
pub struct MemoryStore<C> {
    clock: C,
    /// Keyed with a secret, so that a client cannot construct keys that collide or fall into one
    /// shard.
    prints: Fingerprints,
    shards: Box<[Mutex<Shard>]>,
    settled: SettledHolds,
}

impl<C: Clock> MemoryStore<C> {
    const MAX_SETTLED: usize = 1_000_000;

    /// A store of at most `max_keys` counters, plus a fixed number of overflow counters, on
    /// `clock`.
    pub fn new(max_keys: usize, clock: C) -> Self {
        let shards = (max_keys / MIN_KEYS_PER_SHARD).clamp(1, MAX_SHARDS);
        let max = max_keys.div_ceil(shards);
        Self {
            clock,
            prints: Fingerprints::new(),
            shards: (0..shards).map(|_| Mutex::new(Shard::new(max, shards))).collect(),
            settled: SettledHolds::new(Self::MAX_SETTLED),
        }
    }

    /// The same with room for about `max` settled holds. Each takes about 16 bytes until it would
    /// have ended.
    #[must_use]
    pub fn with_max_settled(self, max: usize) -> Self {
        Self { settled: SettledHolds::new(max), ..self }
    }

    /// Settles a hold: applies its amendments, once.
    pub fn settle_now(&self, Settlement { guard, amendments }: &Settlement) -> Settled {
        let settled = self.settled.note(guard, self.clock.now());
        match settled {
            Settled::Now => _ = self.amend(amendments),
            Settled::Unguarded => {
                let safe = amendments.iter().filter(|it| !it.change.gives_back());
                self.amend(&safe.cloned().collect::<Vec<_>>());
            }
            Settled::Again | Settled::Late => {}
        }
        settled
    }

    /// The number of counters held, including empty ones that are not yet dropped.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The memory of the counters held, estimated.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes()).sum()
    }

    /// True if no counter is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies `amendments` in their order, each in an atomic step of its own. Returns the
    /// [amount](Counter::amend) of each; 0 if its counter found no room.
    pub fn amend(&self, amendments: &[Amendment]) -> Vec<u64> {
        let mut sequence = Sequence::default();
        let mut amend = |Amendment { key, limit, change }: &Amendment| {
            self.update(key, limit, |counter, now| sequence.amend(counter, limit, change, now))
        };
        amendments.iter().map(|amendment| amend(amendment).unwrap_or(0)).collect()
    }

    /// Gives a counter that is empty the state `first`. Returns its state.
    pub fn begin(&self, key: &Key, limit: &Limit, first: impl FnOnce() -> Counter) -> Counter {
        let begin = |counter: &mut Counter, now| {
            if counter.empty_at(limit) <= now {
                *counter = first();
            }
            counter.clone()
        };
        self.update(key, limit, begin).unwrap_or_default()
    }

    /// Changes one counter outside of a decision. Returns `None` if it found no room.
    fn update<T>(
        &self,
        key: &Key,
        limit: &Limit,
        change: impl FnOnce(&mut Counter, Timestamp) -> T,
    ) -> Option<T> {
        let claim = Claim { key: key.clone(), limit: *limit, hits: Hits::Peek(1), lease: None };
        let print = self.prints.of(key);
        let mut shard = self.shard(print);
        let now = self.clock.now();
        let at = shard.locate(print, &claim, now);
        let mut counter = shard.take(&at, &claim);
        let result = change(&mut counter, now);
        shard.put(&at, &claim, counter, now).then_some(result)
    }

    fn decide_now(&self, group: &Group, commit: Commit) -> Answer {
        let prints: Vec<Fingerprint> =
            group.claims.iter().map(|claim| self.prints.of(&claim.key)).collect();
        let mut locked = Locked::lock(&self.shards, &prints);
        // Read under the locks, so that decisions on a key have increasing times.
        let now = self.clock.now();
        let mut refs: Vec<(CounterRef, usize)> = Vec::with_capacity(group.claims.len());
        let mut counters = Vec::with_capacity(group.claims.len());
        let mut slots = Vec::with_capacity(group.claims.len());
        for (i, (claim, &print)) in group.claims.iter().zip(&prints).enumerate() {
            let shard = locked.shard(print);
            let at = shard.locate(print, claim, now);
            let known = refs.iter().position(|(known, _)| *known == at);
            slots.push(known.unwrap_or_else(|| {
                counters.push(shard.take(&at, claim));
                refs.push((at, i));
                refs.len() - 1
            }));
        }
        let readings = group.decide(commit, now, &slots, &mut counters);
        let mut lost = vec![false; refs.len()];
        for (((at, first), counter), lost) in refs.into_iter().zip(counters).zip(&mut lost) {
            if let (Some(claim), Some(&print)) = (group.claims.get(first), prints.get(first)) {
                *lost = !locked.shard(print).put(&at, claim, counter, now);
            }
        }
        answer(&slots, readings, &lost)
    }

    /// The common case, a group of one claim, without the bookkeeping for several. Allocates
    /// nothing.
    fn decide_one(&self, claim: &Claim, commit: Commit) -> Answer {
        let print = self.prints.of(&claim.key);
        let mut shard = self.shard(print);
        let now = self.clock.now();
        let decide = |counter: &mut Counter| claim.decide(commit, now, counter);
        if let Some(reading) = shard.step(print, claim, now, decide) {
            return Answer::full([reading]);
        }
        let at = shard.locate(print, claim, now);
        let mut counter = shard.take(&at, claim);
        let reading = claim.decide(commit, now, &mut counter);
        let kept = shard.put(&at, claim, counter, now);
        drop(shard);
        if kept { Answer::full([reading]) } else { full_store([None]) }
    }

    #[expect(clippy::indexing_slicing, reason = "`shard_of` is below the number of shards")]
    fn shard(&self, print: Fingerprint) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(print, self.shards.len())].lock()
    }
}

impl<C: Clock> LimitStore for MemoryStore<C> {
    async fn decide(&self, group: &Group, commit: Commit, _deadline: Deadline) -> Answer {
        match group.claims.as_slice() {
            [] => Answer::full([]),
            [claim] => self.decide_one(claim, commit),
            _ => self.decide_now(group, commit),
        }
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        Ok(self.settle_now(&settlement))
    }

    /// Resets counters, but no overflow counters: those are shared with other keys.
    async fn forget(&self, keys: &[Key], _deadline: Deadline) -> Result<u32, StoreError> {
        let forget = |key: &&Key| {
            let print = self.prints.of(key);
            let mut shard = self.shard(print);
            let now = self.clock.now();
            shard.forget(print, now)
        };
        Ok(keys.iter().filter(forget).count() as u32)
    }
}

/// Builds the answer. A claim whose counter found no room was not charged, so it has no reading.
fn answer(slots: &[usize], readings: Vec<Reading>, lost: &[bool]) -> Answer {
    if !lost.contains(&true) {
        return Answer::full(readings);
    }
    let kept =
        |(slot, reading): (&usize, Reading)| (lost.get(*slot) == Some(&false)).then_some(reading);
    full_store(slots.iter().zip(readings).map(kept))
}

/// The answer of a store that has no room for all counters.
fn full_store(readings: impl IntoIterator<Item = Option<Reading>>) -> Answer {
    Answer {
        readings: readings.into_iter().collect(),
        failure: Some(StoreError::Unavailable("the memory store is full".to_owned())),
        late: Vec::new(),
        held: None,
    }
}

/// The locked shards of one group. Locks are taken in the order of the shards, which excludes
/// deadlocks.
struct Locked<'a> {
    shards: usize,
    guards: Vec<(usize, MutexGuard<'a, Shard>)>,
}

impl<'a> Locked<'a> {
    fn lock(shards: &'a [Mutex<Shard>], prints: &[Fingerprint]) -> Self {
        let mut touched: Vec<usize> =
            prints.iter().map(|print| shard_of(*print, shards.len())).collect();
        touched.sort_unstable();
        touched.dedup();
        let lock = |i: usize| shards.get(i).map(|shard| (i, shard.lock()));
        Self { shards: shards.len(), guards: touched.into_iter().filter_map(lock).collect() }
    }

    #[expect(clippy::indexing_slicing, reason = "every fingerprint was given to `lock`")]
    fn shard(&mut self, print: Fingerprint) -> &mut Shard {
        let shard = shard_of(print, self.shards);
        let at = self.guards.partition_point(|(i, _)| *i < shard);
        &mut self.guards[at].1
    }
}

fn shard_of(print: Fingerprint, shards: usize) -> usize {
    print.spread as usize % shards
}

#[cfg(test)]
mod tests;
