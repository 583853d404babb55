//! The keys that a scan met: records with other keys are gone.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

/// A set of keys by 128 bits of hash each, with a secret: a million of them are not held twice.
#[derive(Debug, Default)]
pub(super) struct Keys {
    hashers: (RandomState, RandomState),
    set: HashSet<(u64, u64)>,
}

impl Keys {
    pub(super) fn insert(&mut self, key: &[u8]) {
        self.set.insert(self.hash(key));
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.set.contains(&self.hash(key))
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }
}
