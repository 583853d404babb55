//! Exponential back-off between attempts to connect.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Waits that double up to one second. Jitter prevents that all replicas reconnect at the same
/// time.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    random: RandomState,
    attempts: u64,
}

impl Backoff {
    const MIN: Duration = Duration::from_millis(50);
    /// The maximum wait.
    pub(crate) const MAX: Duration = Duration::from_secs(1);

    /// Starts at the minimum wait.
    pub(crate) fn new() -> Self {
        Self { next: Self::MIN, random: RandomState::new(), attempts: 0 }
    }

    /// Returns the next wait, with jitter: between half and all of the current length.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::MAX);
        self.attempts += 1;
        let half = whole / 2;
        let share = self.random.hash_one(self.attempts) % 1_001;
        half + half.mul_f64(share as f64 / 1_000.0)
    }

    /// Returns to the minimum wait.
    pub(crate) fn reset(&mut self) {
        self.next = Self::MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_start_again() {
        let mut backoff = Backoff::new();
        let first = backoff.wait();
        assert!(first >= Backoff::MIN / 2 && first <= Backoff::MIN, "{first:?}");
        let later = (0..10).map(|_| backoff.wait()).last().unwrap();
        assert!(later >= Backoff::MAX / 2 && later <= Backoff::MAX, "{later:?}");
        backoff.reset();
        assert!(backoff.wait() <= Backoff::MIN);
    }
}
