//! Events that were reported: a table of fixed size, by hash.

use parking_lot::Mutex;

const SETS: usize = 1_024;
const LINES: usize = 8;

/// Hashes with the period in which each was reported last. 128 KiB.
#[derive(Debug)]
pub(super) struct Seen(Box<[Mutex<[Line; LINES]>]>);

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    hash: u64,
    /// Counted from 1; 0: free.
    period: u64,
    /// The order of use within the set.
    turn: u64,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }

    /// True once for each hash and period. The longest unused of a set makes room.
    ///
    /// # Concurrency
    /// Takes the lock of a set.
    #[expect(clippy::indexing_slicing, reason = "the index is below the number of sets")]
    pub(super) fn is_new(&self, hash: u64, period: u64) -> bool {
        let mut lines = self.0[(hash >> 32) as usize % SETS].lock();
        let turn = lines.iter().map(|line| line.turn).max().unwrap_or_default() + 1;
        let period = period.saturating_add(1);
        if let Some(line) = lines.iter_mut().find(|line| line.hash == hash && line.period > 0) {
            line.turn = turn;
            let before = line.period;
            line.period = before.max(period);
            return before < period;
        }
        if let Some(oldest) = lines.iter_mut().min_by_key(|line| line.turn) {
            *oldest = Line { hash, period, turn };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_for_each_hash_and_period() {
        let seen = Seen::new();
        let hashes = || (0..1_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for period in [0, 1, 5] {
            assert!(hashes().all(|hash| seen.is_new(hash, period)), "{period}");
            assert!(!hashes().any(|hash| seen.is_new(hash, period)), "{period}");
        }
        // A clock that steps back reports nothing twice.
        assert!(!hashes().any(|hash| seen.is_new(hash, 4)));
    }

    #[test]
    fn what_is_used_stays_and_the_rest_makes_room() {
        let seen = Seen::new();
        assert!(seen.is_new(7, 1));
        for hash in 100..1_000 {
            assert!(seen.is_new(hash, 1));
            assert!(!seen.is_new(7, 1), "used after {hash}");
        }
        assert!(seen.is_new(100, 1), "forgotten");
    }
}
