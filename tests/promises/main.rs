//! The promises of the three algorithms over every interval, and their exactness against naive oracles.
//!
//! The oracles share nothing with the code: the bucket is a deficit in exact integers, the windows are logs of
//! every hit. Intervals are held against the promise by the checker of `tollgate verify`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(unreachable_pub, missing_docs, reason = "nothing is public in a test")]

#[path = "../store/random.rs"]
mod random;

mod failover;
mod group;
mod holds;
mod oracle;
mod receipts;
mod remembered;
mod settled;
mod unnamed;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tollgate::domain::{Algorithm, Charge, Counter, Hits, Limit, Timestamp};
use tollgate::verify::{Promise, Trace};

use crate::oracle::{Bucket, Log, Windows};

/// One step of a trace: how much later it is, in thousandths of the period, and what is asked.
#[derive(Clone, Copy, Debug)]
struct Step {
    wait: u64,
    jitter: u64,
    hits: Hits,
}

fn steps(refunds: bool) -> impl Strategy<Value = Vec<Step>> {
    let hits = prop_oneof![
        6 => (1_u64..6).prop_map(Hits::Take),
        2 => (1_u64..60).prop_map(Hits::Take),
        1 => Just(Hits::Peek(1)),
        if refunds { 2 } else { 0 } => (0_u64..6).prop_map(Hits::Refund),
    ];
    let wait = prop_oneof![3 => Just(0), 4 => 0_u64..120, 1 => 900_u64..1_100, 1 => 0_u64..3_000];
    let step = (wait, 0_u64..3, hits).prop_map(|(wait, jitter, hits)| Step { wait, jitter, hits });
    prop::collection::vec(step, 1..80)
}

fn period() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1_000_000), Just(60_000_000), Just(86_400_000_000), 1_000_u64..5_000_000]
}

/// Runs a trace and returns (time, hits admitted), and each reading with its time.
fn run(limit: &Limit, steps: &[Step]) -> Vec<(u64, Hits, tollgate::domain::Reading)> {
    let mut counter = Counter::Empty;
    let mut now = 1_700_000_000_000_000;
    steps
        .iter()
        .map(|step| {
            now += step.wait * limit.period_micros() / 1_000 + step.jitter;
            (now, step.hits, counter.step(limit, step.hits, Timestamp::from_micros(now)))
        })
        .collect()
}

fn admitted(trace: &[(u64, Hits, tollgate::domain::Reading)]) -> Trace {
    let mut admitted = Trace::default();
    for (now, hits, reading) in trace {
        if let (Hits::Take(hits), true) = (hits, reading.passed) {
            let now = Timestamp::from_micros(*now);
            admitted.admit(now, now, *hits);
        }
    }
    admitted
}

/// Checks that the admissions of `limit` among these steps keep its promise.
fn keeps(limit: &Limit, steps: &[Step]) -> Result<(), TestCaseError> {
    let kept = Promise::new(*limit).check(&admitted(&run(limit, steps)));
    kept.map_err(|broken| TestCaseError::fail(broken.to_string()))
}

fn limit(n: u32, period: u64, algorithm: Algorithm) -> Limit {
    Limit::new(n, Duration::from_micros(period), algorithm, Charge::Admitted).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bucket_admits_at_most_burst_and_rate_in_every_interval(
        n in 1_u32..50, burst in 1_u32..50, period in period(), steps in steps(false),
    ) {
        keeps(&limit(n, period, Algorithm::TokenBucket { burst }), &steps)?;
    }

    #[test]
    fn sliding_window_admits_at_most_the_limit_in_every_window(
        n in 1_u32..60, slots in 1_u32..30, period in period(), steps in steps(false),
    ) {
        keeps(&limit(n, period, Algorithm::SlidingWindow { slots }), &steps)?;
    }

    #[test]
    fn fixed_window_admits_at_most_the_limit_in_every_aligned_window(
        n in 1_u32..60, period in period(), steps in steps(false),
    ) {
        keeps(&limit(n, period, Algorithm::FixedWindow), &steps)?;
    }

    #[test]
    fn bucket_agrees_with_exact_deficit(
        n in 1_u32..5_000_000, burst in 1_u32..50, period in period(), steps in steps(true),
    ) {
        let limit = limit(n, period, Algorithm::TokenBucket { burst });
        let mut oracle = Bucket::new(n, burst, period);
        for (now, hits, reading) in run(&limit, &steps) {
            let (passed, remaining) = oracle.step(now, hits);
            prop_assert_eq!((reading.passed, reading.remaining), (passed, remaining));
        }
    }

    #[test]
    fn sliding_window_of_few_hits_is_the_full_log(
        n in 1_u32..30, extra in 0_u32..20, period in period(), steps in steps(true),
    ) {
        let limit = limit(n, period, Algorithm::SlidingWindow { slots: n + extra });
        let mut oracle = Log::new(n, period);
        for (now, hits, reading) in run(&limit, &steps) {
            let (passed, remaining) = oracle.step(now, hits);
            prop_assert_eq!((reading.passed, reading.remaining), (passed, remaining));
        }
    }

    /// What it denies, a log that remembers each hit one slot longer denies, too.
    #[test]
    fn sliding_window_denies_at_most_a_slot_longer(
        n in 2_u32..60, slots in 1_u32..30, period in period(), steps in steps(false),
    ) {
        let limit = limit(n, period, Algorithm::SlidingWindow { slots });
        let mut longer = Log::new(n, period + limit.run_width() - 1);
        let mut counter = Counter::Empty;
        let mut now = 1_700_000_000_000_000;
        for step in steps {
            now += step.wait * period / 1_000 + step.jitter;
            let reading = counter.step(&limit, step.hits, Timestamp::from_micros(now));
            if longer.would_pass(now, step.hits) {
                prop_assert!(reading.passed, "denied {:?} at {now}", step.hits);
            }
            if reading.passed {
                longer.charge(now, step.hits);
            }
        }
    }

    #[test]
    fn fixed_window_agrees_with_counts(
        n in 1_u32..60, period in period(), steps in steps(true),
    ) {
        let limit = limit(n, period, Algorithm::FixedWindow);
        let mut oracle = Windows::new(n, period);
        for (now, hits, reading) in run(&limit, &steps) {
            let (passed, remaining) = oracle.step(now, hits);
            prop_assert_eq!((reading.passed, reading.remaining), (passed, remaining));
        }
    }

    /// The wait that a denial reports is exact: a microsecond earlier fails, then it passes.
    #[test]
    fn retry_is_the_first_moment_that_passes(
        n in 1_u32..40, kind in 0_usize..3, period in period(), steps in steps(true),
    ) {
        let limit = limit(n, period, algorithms(n)[kind]);
        let mut counter = Counter::Empty;
        let mut now = 1_700_000_000_000_000;
        for step in steps {
            now += step.wait * period / 1_000 + step.jitter;
            let reading = counter.step(&limit, step.hits, Timestamp::from_micros(now));
            let passes_in = |wait: u64| {
                let at = Timestamp::from_micros(now + wait);
                counter.clone().step(&limit, step.hits, at).passed
            };
            match reading.retry_after.map(|wait| u64::try_from(wait.as_micros()).unwrap()) {
                Some(0) => prop_assert!(reading.passed),
                Some(wait) => {
                    prop_assert!(passes_in(wait), "not yet after {wait}");
                    prop_assert!(!passes_in(wait - 1), "earlier than {wait}");
                }
                None => prop_assert!(step.hits.needed() > limit.capacity()),
            }
        }
    }

    /// After `reset_after` nothing counts as used.
    #[test]
    fn reset_is_the_first_moment_that_is_full(
        n in 1_u32..40, kind in 0_usize..3, period in period(), steps in steps(true),
    ) {
        let limit = limit(n, period, algorithms(n)[kind]);
        let mut counter = Counter::Empty;
        let mut now = 1_700_000_000_000_000;
        for step in steps {
            now += step.wait * period / 1_000 + step.jitter;
            let reading = counter.step(&limit, step.hits, Timestamp::from_micros(now));
            let left_in = |wait: u64| {
                let at = Timestamp::from_micros(now + wait);
                counter.clone().step(&limit, Hits::Peek(1), at).remaining
            };
            let wait = u64::try_from(reading.reset_after.as_micros()).unwrap();
            prop_assert_eq!(left_in(wait), limit.capacity());
            // A bucket that is just full is kept for a microsecond more: at another rate it might round to less.
            prop_assert!(counter.empty_at(&limit).as_micros() <= now + wait + 1);
            prop_assert!(reading.remaining <= limit.capacity());
        }
    }

    /// A clock that steps back lets nothing through early: over the whole trace, on the latest time seen,
    /// the bucket's bound holds.
    #[test]
    fn a_backward_step_admits_nothing_early(
        n in 1_u32..20, period in period(), steps in steps(false), back in 1_u64..5_000,
    ) {
        let limit = limit(n, period, Algorithm::TokenBucket { burst: n });
        let mut counter = Counter::Empty;
        let (mut now, mut elapsed, mut taken) = (1_700_000_000_000_000_u64, 0_u128, 0_u128);
        for (i, step) in steps.iter().enumerate() {
            let wait = step.wait * period / 1_000 + step.jitter;
            now += wait;
            elapsed += u128::from(wait);
            if i % 7 == 3 {
                now -= back * period / 1_000;
            }
            let reading = counter.step(&limit, step.hits, Timestamp::from_micros(now));
            if let (Hits::Take(hits), true) = (step.hits, reading.passed) {
                taken += u128::from(hits);
            }
            let bound = u128::from(n) * u128::from(period) + u128::from(n) * elapsed;
            prop_assert!(taken * u128::from(period) <= bound);
        }
    }

    /// Hits used stay used when the rate changes: never more left than before, and hardly less.
    #[test]
    fn a_rate_change_forgets_no_hit(
        old in 1_u32..5_000_000, new in 1_u32..5_000_000, burst in 1_u32..1_000, used in 1_u64..1_000, period in period(),
    ) {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let before = limit(old, period, Algorithm::TokenBucket { burst });
        let after = limit(new, period, Algorithm::TokenBucket { burst });
        let mut counter = Counter::Empty;
        let first = counter.step(&before, Hits::Take(used), now);
        let second = counter.step(&after, Hits::Peek(1), now);
        prop_assert!(second.remaining <= first.remaining);
        // Rounding up to whole microseconds costs what refills in one.
        let rounding = 2 + u64::from(new) / period;
        prop_assert!(second.remaining + rounding >= first.remaining);
    }
}

fn algorithms(n: u32) -> [Algorithm; 3] {
    [
        Algorithm::TokenBucket { burst: n / 2 + 1 },
        Algorithm::SlidingWindow { slots: 7 },
        Algorithm::FixedWindow,
    ]
}
