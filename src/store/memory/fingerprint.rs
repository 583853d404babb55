//! Fingerprints: 128-bit keyed hashes that identify keys in the memory store.
//!
//! Two keys with the same fingerprint would share a counter. The probability of a collision among n
//! live counters is about n^2 / 2^129: 1.5e-27 for a million. Without the secret, a client cannot
//! search for colliding keys.
//!
//! Source: SipHash-1-3 with 128-bit output, J.-P. Aumasson and D. J. Bernstein (2012).

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use siphasher::sip128::SipHasher13;

use crate::domain::Key;

/// The fingerprint of a key, valid in this process only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint {
    /// The hash used in the index of the shard.
    pub(super) index: u64,
    /// The hash that chooses the shard. Independent of `index`, so that the keys of a shard have
    /// evenly distributed values of `index`.
    pub(super) spread: u64,
}

/// A keyed hasher with a random secret.
pub(super) struct Fingerprints(SipHasher13);

impl Fingerprints {
    /// Makes a hasher with a new random secret.
    pub(super) fn new() -> Self {
        // `RandomState` takes its keys from the random numbers of the operating system.
        let random = RandomState::new();
        Self(SipHasher13::new_with_keys(random.hash_one(0_u64), random.hash_one(1_u64)))
    }

    /// The fingerprint of `key`.
    pub(super) fn of(&self, key: &Key) -> Fingerprint {
        let hash = self.0.hash(key.as_bytes());
        Fingerprint { index: hash.h1, spread: hash.h2 }
    }
}

impl fmt::Debug for Fingerprints {
    /// Omits the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_of_a_million_keys_differ_in_both_halves() {
        let prints = Fingerprints::new();
        let of = |i: u32| prints.of(&Key::new(format!("key {i}").into_bytes()));
        let mut halves: Vec<[u64; 2]> =
            (0..1_000_000).map(of).map(|print| [print.index, print.spread]).collect();
        halves.sort_unstable();
        assert!(halves.is_sorted_by(|a, b| a[0] < b[0]), "equal in the first half");
        halves.sort_unstable_by_key(|half| half[1]);
        assert!(halves.is_sorted_by(|a, b| a[1] < b[1]), "equal in the second half");
    }

    #[test]
    fn each_secret_gives_other_fingerprints() {
        let key = Key::new(*b"key");
        let print = Fingerprints::new().of(&key);
        assert_ne!(Fingerprints::new().of(&key), print);
        assert_eq!(format!("{:?}", Fingerprints::new()), "Fingerprints", "the secret stays one");
    }
}
