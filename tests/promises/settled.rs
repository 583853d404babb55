//! `charge: settled` against the table of its documentation, in plain numbers, under every algorithm.
//!
//! The models share nothing with the code. Each keeps what is used in exact integers; [`Model::step`] is the table.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tollgate::domain::{Algorithm, Charge, Counter, Hits, Limit, Timestamp};

/// The hits used of one counter.
enum Used {
    /// Used hits times the period; `n` times as many drain per period.
    Bucket { n: u128, deficit: u128 },
    /// Times and hits.
    Log(Vec<(u64, u64)>),
    /// By window.
    Windows(HashMap<u64, u64>),
}

struct Model {
    capacity: u64,
    period: u64,
    max_debt: Option<u64>,
    used: Used,
    at: u64,
}

impl Model {
    fn new(limit: &Limit, max_debt: Option<u64>) -> Self {
        let used = match limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                Used::Bucket { n: u128::from(limit.requests().max(1)), deficit: 0 }
            }
            Algorithm::SlidingWindow { .. } => Used::Log(Vec::new()),
            Algorithm::FixedWindow | Algorithm::Concurrency => Used::Windows(HashMap::new()),
        };
        Self { capacity: limit.capacity(), period: limit.period_micros(), max_debt, used, at: 0 }
    }

    /// What is used at `now`, in units of which `scale` are one hit.
    fn used(&mut self, now: u64) -> (u128, u128) {
        let period = self.period;
        match &mut self.used {
            Used::Bucket { n, deficit } => {
                *deficit = deficit.saturating_sub(*n * u128::from(now - self.at));
                self.at = now;
                (*deficit, period.into())
            }
            Used::Log(log) => {
                log.retain(|(at, _)| at + period > now);
                (log.iter().map(|(_, hits)| u128::from(*hits)).sum(), 1)
            }
            Used::Windows(counts) => (u128::from(*counts.entry(now / period).or_default()), 1),
        }
    }

    fn add(&mut self, now: u64, more: u128) {
        match &mut self.used {
            Used::Bucket { deficit, .. } => *deficit += more,
            Used::Log(log) => log.push((now, more as u64)),
            Used::Windows(counts) => *counts.entry(now / self.period).or_default() += more as u64,
        }
    }

    fn give_back(&mut self, now: u64, hits: u64) {
        match &mut self.used {
            Used::Bucket { deficit, .. } => {
                *deficit = deficit.saturating_sub(u128::from(hits) * u128::from(self.period));
            }
            Used::Log(log) => {
                let mut left = hits;
                for (_, count) in log {
                    let given = left.min(*count);
                    (left, *count) = (left - given, *count - given);
                }
            }
            Used::Windows(counts) => {
                let count = counts.entry(now / self.period).or_default();
                *count = count.saturating_sub(hits);
            }
        }
    }

    /// The most that may be used once `hits` are booked.
    fn most(&self, hits: u64, scale: u128) -> u128 {
        let hits = match (&self.used, self.max_debt) {
            (Used::Windows(_), _) => return u128::MAX,
            (Used::Bucket { .. }, Some(debt)) => hits.max(self.capacity).min(debt),
            _ => hits.max(self.capacity),
        };
        u128::from(self.capacity + hits) * scale
    }

    /// Whether the hits pass, and what is left.
    fn step(&mut self, now: u64, hits: Hits) -> (bool, u64) {
        let (used, scale) = self.used(now);
        let limit = u128::from(self.capacity) * scale;
        let passed = match hits {
            Hits::Hold(_) => unreachable!("no hold is asked of a rate"),
            Hits::Peek(more) => used + u128::from(more) * scale <= limit,
            Hits::Take(more) => {
                let more = u128::from(more) * scale;
                let fits = used + more <= limit;
                if fits {
                    self.add(now, more);
                }
                fits
            }
            Hits::Book(more) => {
                let most = self.most(more, scale);
                let more = u128::from(more) * scale;
                self.add(now, (used + more).min(most).saturating_sub(used));
                used + more <= limit
            }
            Hits::Refund(given) => {
                self.give_back(now, given);
                true
            }
        };
        let (used, scale) = self.used(now);
        (passed, (limit.saturating_sub(used) / scale) as u64)
    }
}

fn hits() -> impl Strategy<Value = Hits> {
    prop_oneof![
        3 => (1_u64..4).prop_map(Hits::Take),
        3 => Just(Hits::Peek(0)),
        5 => (1_u64..6).prop_map(Hits::Book),
        2 => (1_u64..200).prop_map(Hits::Book),
        1 => (1_u64..6).prop_map(Hits::Refund),
    ]
}

type Step = (u64, u64, Hits);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![3 => Just(0), 4 => 0_u64..300, 1 => 900_u64..1_100, 1 => 0_u64..3_000];
    prop::collection::vec((wait, 0_u64..3, hits()), 1..80)
}

/// Plays `steps` on the counter and on the model.
fn agree(limit: &Limit, max_debt: Option<u64>, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut counter, mut model) = (Counter::Empty, Model::new(limit, max_debt));
    let mut now = 1_700_000_000_000_000;
    for (wait, jitter, hits) in steps {
        now += wait * limit.period_micros() / 1_000 + jitter;
        let reading = counter.step(limit, *hits, Timestamp::from_micros(now));
        let found = (reading.passed, reading.remaining);
        prop_assert_eq!(found, model.step(now, *hits), "{:?} at {}", hits, now);
        // The wait is the shortest after which the same passes: for a peek and for a charge.
        if let (false, Some(wait)) = (reading.passed, reading.retry_after)
            && !wait.is_zero()
        {
            let same = |wait: Duration| {
                let later = Timestamp::from_micros(now + wait.as_micros() as u64);
                counter.clone().step(limit, Hits::Peek(hits.needed()), later).passed
            };
            let before = wait.saturating_sub(Duration::from_micros(1));
            prop_assert!(matches!(hits, Hits::Book(_)) || (same(wait) && !same(before)));
        }
    }
    Ok(())
}

fn limit(requests: u32, period: u64, algorithm: Algorithm, max_debt: Option<u64>) -> Limit {
    let charge = Charge::Settled { max_debt };
    Limit::new(requests, Duration::from_micros(period), algorithm, charge).unwrap()
}

fn period() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1_000_000), Just(86_400_000_000), 1_000_u64..5_000_000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn bucket_follows_the_table(
        n in 0_u32..12, burst in 1_u32..20, period in period(), debt in prop::option::of(0_u64..40), steps in steps()
    ) {
        let burst = if n == 0 { 0 } else { burst };
        let limit = limit(n, period, Algorithm::TokenBucket { burst }, debt);
        agree(&limit, debt, &steps)?;
    }

    #[test]
    fn sliding_window_follows_the_table(n in 0_u32..12, period in period(), steps in steps()) {
        let limit = limit(n, period, Algorithm::SlidingWindow { slots: 1_000 }, None);
        agree(&limit, None, &steps)?;
    }

    #[test]
    fn fixed_window_follows_the_table(n in 0_u32..12, period in period(), steps in steps()) {
        let limit = limit(n, period, Algorithm::FixedWindow, None);
        agree(&limit, None, &steps)?;
    }
}

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn limits(requests: u32) -> [Limit; 3] {
    let day = 86_400_000_000;
    [
        Algorithm::TokenBucket { burst: requests },
        Algorithm::SlidingWindow { slots: 10 },
        Algorithm::FixedWindow,
    ]
    .map(|algorithm| limit(requests, day, algorithm, None))
}

/// Calls that peek, and report their cost whatever became of them. Returns how many pass.
fn calls_that_pass(limit: &Limit, cost: u64) -> u64 {
    let mut counter = Counter::Empty;
    let mut passed = 0;
    while counter.step(limit, Hits::Peek(0), NOW).passed {
        counter.step(limit, Hits::Book(cost), NOW);
        passed += 1;
    }
    passed
}

#[test]
fn calls_with_a_cost_afterwards_end_as_soon_as_more_than_the_limit_is_used() {
    for (requests, cost) in [(21, 10), (6, 2), (2, 2), (4, 2), (0, 2), (6, 3), (3, 1), (12, 4)] {
        for limit in limits(requests) {
            let expected = u64::from(requests) / cost + 1;
            assert_eq!(calls_that_pass(&limit, cost), expected, "{requests} by {cost}: {limit:?}");
        }
    }
    for limit in limits(10) {
        assert_eq!(calls_that_pass(&limit, 10_000), 1, "{limit:?}");
    }
}

#[test]
fn hammering_deepens_the_debt_to_one_capacity_and_no_further() {
    for limit in limits(10) {
        let mut counter = Counter::Empty;
        for _ in 0..1_000 {
            counter.step(&limit, Hits::Book(3), NOW);
        }
        let reading = counter.step(&limit, Hits::Peek(0), NOW);
        let day = Duration::from_hours(24);
        let wait = match limit.algorithm() {
            // 20 are used: 10 refill in a day.
            Algorithm::TokenBucket { .. } | Algorithm::SlidingWindow { .. } => day,
            // To the end of the window, which began at midnight.
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                Duration::from_secs(86_400 - 1_700_000_000 % 86_400)
            }
        };
        assert_eq!((reading.passed, reading.retry_after), (false, Some(wait)), "{limit:?}");
    }
}

#[test]
fn numbers_beyond_any_counter_saturate() {
    for limit in limits(10) {
        let mut counter = Counter::Empty;
        for hits in [u64::MAX, 1 << 52, 1, u64::MAX] {
            assert!(!counter.step(&limit, Hits::Book(hits), NOW).passed || hits == 1, "{limit:?}");
        }
        let reading = counter.step(&limit, Hits::Peek(0), NOW);
        assert_eq!((reading.passed, reading.remaining), (false, 0), "{limit:?}");
        assert!(counter.step(&limit, Hits::Refund(u64::MAX), NOW).passed);
        assert_eq!(counter.step(&limit, Hits::Peek(0), NOW).remaining, 10, "{limit:?}");
    }
}
