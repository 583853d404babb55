//! Holds that were settled, each remembered until it would have ended by itself.
//!
//! A settlement that is delivered twice takes effect once. Where there is no room to remember it,
//! nothing is given back for it, because that could happen again.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashSet};
use parking_lot::Mutex;

use crate::domain::{Guard, Settled, Timestamp};

/// Holds that end within this time are forgotten together.
const SLICE_MICROS: u64 = 8_000_000;

const SHARDS: usize = 16;

/// The settled holds of a store.
#[derive(Debug)]
pub(super) struct SettledHolds {
    shards: Box<[Mutex<Slices>]>,
    hasher: DefaultHashBuilder,
    /// The most that a shard remembers.
    max: usize,
}

/// Hashes of holds by the end of their slice.
#[derive(Debug, Default)]
struct Slices {
    by_end: BTreeMap<u64, HashSet<u64>>,
    len: usize,
}

impl SettledHolds {
    /// Room for about `max` holds.
    pub(super) fn new(max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            max: max.div_ceil(SHARDS),
        }
    }

    /// Notes that the hold of `guard` is settled at `now`, if it was not before.
    pub(super) fn note(&self, guard: &Guard, now: Timestamp) -> Settled {
        if now >= guard.expires_at {
            return Settled::Late;
        }
        let hash = self.hasher.hash_one((guard.key.as_bytes(), guard.id));
        let Some(shard) = self.shards.get(hash as usize % SHARDS) else {
            return Settled::Unguarded;
        };
        let mut slices = shard.lock();
        slices.forget(now);
        let end = guard.expires_at.as_micros().div_ceil(SLICE_MICROS);
        if slices.by_end.get(&end).is_some_and(|slice| slice.contains(&hash)) {
            return Settled::Again;
        }
        if slices.len >= self.max {
            return Settled::Unguarded;
        }
        slices.len += 1;
        slices.by_end.entry(end).or_default().insert(hash);
        Settled::Now
    }
}

impl Slices {
    /// Forgets holds that have ended.
    fn forget(&mut self, now: Timestamp) {
        while let Some(slice) = self.by_end.first_entry()
            && slice.key() * SLICE_MICROS <= now.as_micros()
        {
            self.len -= slice.remove().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{HoldId, Key};

    fn guard(id: u64, expires_at: u64) -> Guard {
        let expires_at = Timestamp::from_micros(expires_at);
        let id = HoldId::from_random(id << 7);
        Guard { key: Key::new(&b"k"[..]), id, expires_at, kept_until: expires_at }
    }

    #[test]
    fn hold_is_settled_once_and_in_time() {
        let (holds, end) = (SettledHolds::new(100), 20_000_000);
        let at = |micros| Timestamp::from_micros(micros);
        assert_eq!(holds.note(&guard(1, end), at(0)), Settled::Now);
        assert_eq!(holds.note(&guard(2, end), at(0)), Settled::Now);
        assert_eq!(holds.note(&guard(1, end), at(end - 1)), Settled::Again);
        assert_eq!(holds.note(&guard(1, end), at(end)), Settled::Late);
    }

    #[test]
    fn ended_holds_make_room_and_without_room_nothing_is_remembered() {
        let (holds, second) = (SettledHolds::new(0), 1_000_000);
        assert_eq!(holds.note(&guard(1, second), Timestamp::EPOCH), Settled::Unguarded);
        let holds = SettledHolds::new(SHARDS);
        let note = |end, now| {
            let id = |id| holds.note(&guard(id, end), Timestamp::from_micros(now));
            (0..200).map(id).filter(|settled| *settled == Settled::Now).count()
        };
        assert_eq!(note(second, 0), SHARDS, "one a shard");
        assert_eq!(note(2 * second, 0), 0);
        assert_eq!(note(20 * second, 2 * SLICE_MICROS), SHARDS);
    }
}
