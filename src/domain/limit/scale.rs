//! A part of a limit: what is left of it while its rule is turned down.
//!
//! A scale changes requests, burst and the number at a time, and nothing else: windows, slots and
//! counters stay as they are, so hits that are used stay used.

use std::time::Duration;

use super::{Algorithm, Limit, MAX_SPAN_US};

/// The scale at which a limit is whole.
pub const WHOLE: u16 = 1_000;

impl Limit {
    /// `per_mille` thousandths of the limit, rounded down, at least 1. A limit of 0 stays 0.
    #[must_use]
    pub fn scaled(self, per_mille: u16) -> Self {
        let of = |number: u32| scaled(number, per_mille);
        let requests = of(self.requests);
        let algorithm = match self.algorithm {
            Algorithm::TokenBucket { burst } => {
                // Rounding may leave a rate that fills such a bucket too late.
                let longest = u128::from(MAX_SPAN_US) * u128::from(requests);
                let most = longest / u128::from(self.whole_period);
                let burst = u128::from(of(burst)).min(most);
                Algorithm::TokenBucket { burst: u32::try_from(burst).unwrap_or(u32::MAX) }
            }
            other => other,
        };
        let period = Duration::from_micros(self.whole_period);
        // Nothing else of a valid limit has changed.
        let limit = Self::new(requests, period, algorithm, self.charge).unwrap_or(self);
        Self { windows: self.windows, ..limit }.waiting_micros(self.max_wait, 1)
    }
}

fn scaled(number: u32, per_mille: u16) -> u32 {
    if number == 0 {
        return 0;
    }
    let part = u64::from(number) * u64::from(per_mille) / u64::from(WHOLE);
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Charge;

    fn limit(requests: u32, algorithm: Algorithm) -> Limit {
        Limit::new(requests, Duration::from_mins(1), algorithm, Charge::Admitted).unwrap()
    }

    #[test]
    fn requests_burst_and_slots_are_scaled_and_never_vanish() {
        for (requests, per_mille, expected) in [
            (100, 500, 50),
            (100, 999, 99),
            (3, 100, 1),
            (0, 500, 0),
            (7, 1_000, 7),
            (7, 2_000, 14),
        ] {
            for algorithm in [
                Algorithm::FixedWindow,
                Algorithm::SlidingWindow { slots: 10 },
                Algorithm::Concurrency,
            ] {
                let scaled = limit(requests, algorithm).scaled(per_mille);
                assert_eq!(scaled, limit(expected, algorithm), "{requests} at {per_mille}");
            }
        }
        let bucket = limit(100, Algorithm::TokenBucket { burst: 20 });
        assert_eq!(bucket.scaled(250), limit(25, Algorithm::TokenBucket { burst: 5 }));
        let waiting = bucket.waiting(Duration::from_secs(2));
        let expected = limit(50, Algorithm::TokenBucket { burst: 10 });
        assert_eq!(waiting.scaled(500), expected.waiting(Duration::from_secs(2)));
    }

    proptest! {
        /// Above nothing, and within the whole where the scale is no more than that.
        #[test]
        fn no_part_is_more_than_the_whole(
            requests in any::<u32>(),
            burst in 1..=u32::MAX,
            seconds in 1..1_000_000_u64,
            per_mille in 0..=WHOLE,
        ) {
            let bucket = Algorithm::TokenBucket { burst };
            for algorithm in [bucket, Algorithm::FixedWindow, Algorithm::Concurrency] {
                let period = Duration::from_secs(seconds);
                let Ok(whole) = Limit::new(requests, period, algorithm, Charge::Admitted) else {
                    continue;
                };
                let part = whole.scaled(per_mille);
                prop_assert!(part.requests() <= whole.requests());
                prop_assert!(part.capacity() <= whole.capacity());
                prop_assert_eq!(part.requests() == 0, whole.requests() == 0);
                prop_assert_eq!(part.capacity() == 0, whole.capacity() == 0);
                prop_assert_eq!(whole.scaled(WHOLE), whole);
            }
        }
    }
}
