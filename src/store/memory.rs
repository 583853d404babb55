//! The store inside the process: sharded, bounded, nothing to set up.
//!
//! It runs [`Group::decide`] under the locks of the shards that a group touches, and never waits. Counters live
//! as long as the process and are seen by no other replica.
//!
//! A counter is known by a fingerprint of its key and does not hold the key: about 65 bytes of memory each, and for a
//! window of several runs more, up to about 140 in all for 10 slots.

mod entries;
mod fingerprint;
mod held;
mod index;
mod shard;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use self::fingerprint::{Fingerprint, Fingerprints};
use self::shard::{Place, Shard};
use super::{Answer, LimitStore, StoreError};
use crate::domain::{Claim, Clock, Commit, Group, Key, Reading};

/// Shards of a large store. More than cores, so that two cores seldom meet.
const SHARDS: usize = 64;

/// Fewer keys than this are not worth another shard.
const KEYS_PER_SHARD: usize = 64;

/// Counters in the memory of this process.
#[derive(Debug)]
pub struct MemoryStore<C> {
    clock: C,
    /// Under a secret, so that nobody can choose keys that share a counter, or meet in one shard.
    prints: Fingerprints,
    shards: Box<[Mutex<Shard>]>,
}

impl<C: Clock> MemoryStore<C> {
    /// A store of at most `max_keys` counters (and a fixed number of overflow counters), on `clock`.
    pub fn new(max_keys: usize, clock: C) -> Self {
        let shards = (max_keys / KEYS_PER_SHARD).clamp(1, SHARDS);
        let max = max_keys.div_ceil(shards);
        Self {
            clock,
            prints: Fingerprints::new(),
            shards: (0..shards).map(|_| Mutex::new(Shard::new(max, shards))).collect(),
        }
    }

    /// Counters held now, those that are empty again but not yet dropped included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no counter is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn decide_now(&self, group: &Group, commit: Commit) -> Answer {
        let prints: Vec<Fingerprint> =
            group.claims.iter().map(|claim| self.prints.of(&claim.key)).collect();
        let mut locked = Locked::lock(&self.shards, &prints);
        // Read under the locks: decisions on one key are in the order of their times.
        let now = self.clock.now();
        let mut places: Vec<(Place, usize)> = Vec::with_capacity(group.claims.len());
        let mut counters = Vec::with_capacity(group.claims.len());
        let mut slots = Vec::with_capacity(group.claims.len());
        for (i, (claim, &print)) in group.claims.iter().zip(&prints).enumerate() {
            let shard = locked.shard(print);
            let place = shard.place(print, claim, now);
            let known = places.iter().position(|(taken, _)| *taken == place);
            slots.push(known.unwrap_or_else(|| {
                counters.push(shard.take(&place, claim));
                places.push((place, i));
                places.len() - 1
            }));
        }
        let readings = group.decide(commit, now, &slots, &mut counters);
        let mut lost = vec![false; places.len()];
        for (((place, first), counter), lost) in places.into_iter().zip(counters).zip(&mut lost) {
            if let (Some(claim), Some(&print)) = (group.claims.get(first), prints.get(first)) {
                *lost = !locked.shard(print).put(&place, claim, counter, now);
            }
        }
        answer(&slots, readings, &lost)
    }

    /// The common case, a group of one claim, without the bookkeeping of several: allocates the answer alone.
    fn decide_one(&self, claim: &Claim, group: &Group, commit: Commit) -> Answer {
        let print = self.prints.of(&claim.key);
        let mut shard = self.shard(print);
        let now = self.clock.now();
        let place = shard.place(print, claim, now);
        let mut counters = [shard.take(&place, claim)];
        let readings = group.decide(commit, now, &[0], &mut counters);
        let [counter] = counters;
        let lost = !shard.put(&place, claim, counter, now);
        drop(shard);
        answer(&[0], readings, &[lost])
    }

    #[expect(clippy::indexing_slicing, reason = "`shard_of` is below the number of shards")]
    fn shard(&self, print: Fingerprint) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(print, self.shards.len())].lock()
    }
}

impl<C: Clock> LimitStore for MemoryStore<C> {
    async fn decide(&self, group: &Group, commit: Commit, _deadline: Instant) -> Answer {
        match group.claims.as_slice() {
            [] => Answer::full(Vec::new()),
            [claim] => self.decide_one(claim, group, commit),
            _ => self.decide_now(group, commit),
        }
    }

    /// A counter that is shared for want of room stays: it is not the key's alone.
    async fn forget(&self, keys: &[Key], _deadline: Instant) -> Result<u32, StoreError> {
        let forget = |key: &&Key| {
            let print = self.prints.of(key);
            let mut shard = self.shard(print);
            let now = self.clock.now();
            shard.forget(print, now)
        };
        Ok(keys.iter().filter(forget).count() as u32)
    }
}

/// A charge that found no room is no charge: such a claim has no reading.
fn answer(slots: &[usize], readings: Vec<Reading>, lost: &[bool]) -> Answer {
    if !lost.contains(&true) {
        return Answer::full(readings);
    }
    let kept =
        |(slot, reading): (&usize, Reading)| (lost.get(*slot) == Some(&false)).then_some(reading);
    Answer {
        readings: slots.iter().zip(readings).map(kept).collect(),
        failure: Some(StoreError::Unavailable("the memory store is full".to_owned())),
    }
}

/// The shards of one group, locked in their order so that two groups cannot wait for each other.
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
