//! The promise while charges that were never admitted are given back a little later, and others act
//! in between.
//!
//! The oracle knows what was admitted, and nothing of what was charged meanwhile.

use std::time::Duration;

use tollgate::domain::{
    Algorithm, Change, Charge, Claim, Commit, Counter, Group, Hits, Key, LeaseAsk, Limit, Part,
    Timestamp,
};

use crate::random::Random;

const START: u64 = 1_700_000_000_000_000;
const TRACES: u64 = 4_000;

/// The rule by which hits are given back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// By the receipt: the time of the charge.
    Receipt,
    /// As a caller refunds: all of them, the oldest first, and from whatever window.
    Refund,
}

/// The time at which hits are given back, in microseconds after the charge.
#[derive(Clone, Copy, Debug)]
struct Delay(u64);

struct World {
    limit: Limit,
    counter: Counter,
    /// Charges that are not admitted: hits, time, and when they are given back.
    open: Vec<(u64, u64, u64)>,
    admitted: Vec<(u64, u64)>,
    given_back: u64,
}

impl World {
    fn new(random: &mut Random, algorithm: usize) -> Self {
        let period = Duration::from_micros(random.pick(&[20, 60]));
        let algorithm = [
            Algorithm::TokenBucket { burst: random.pick(&[1, 3, 6]) },
            Algorithm::SlidingWindow { slots: random.pick(&[2, 4, 10]) },
            Algorithm::FixedWindow,
        ][algorithm];
        let requests = random.pick(&[2, 3, 5, 8]);
        let limit = Limit::new(requests, period, algorithm, Charge::Admitted).unwrap();
        let (open, admitted) = (Vec::new(), Vec::new());
        Self { limit, counter: Counter::Empty, open, admitted, given_back: 0 }
    }

    fn run(&mut self, random: &mut Random, rule: Rule, delay: Delay) {
        let period = self.limit.period_micros();
        let most = (self.limit.capacity() / 2).max(1);
        let leases = matches!(self.limit.algorithm(), Algorithm::TokenBucket { .. });
        let mut now = START;
        for _ in 0..60 {
            now += random.pick(&[0, 0, 1, 1, 2, period / 4, period / 2]);
            self.give_back(now, rule);
            let hits = 1 + random.up_to(most - 1);
            match random.up_to(99) {
                0..35 if self.take(hits, now) => {
                    self.open.push((hits, now, now + random.up_to(delay.0)));
                }
                35..50 if leases => self.lease(random, hits, most, now),
                35.. if self.take(hits, now) => self.admitted.push((now, hits)),
                _ => {}
            }
        }
        self.admitted.sort_unstable();
    }

    fn take(&mut self, hits: u64, now: u64) -> bool {
        self.counter.step(&self.limit, Hits::Take(hits), Timestamp::from_micros(now)).passed
    }

    /// A hit, and tokens that are spent at some time before their lease ends.
    fn lease(&mut self, random: &mut Random, tokens: u64, most: u64, now: u64) {
        let ask = LeaseAsk { tokens, most, ttl: Duration::from_micros(10), finished: None };
        let (limit, lease) = (self.limit, Some(Box::new(ask)));
        let claim = Claim { key: Key::new(&b"k"[..]), limit, hits: Hits::Take(1), lease };
        let parts = vec![Part { quota: false, shadow: false, claims: 0..1 }];
        let group = Group { parts, claims: vec![claim] };
        let counters = std::slice::from_mut(&mut self.counter);
        let at = Timestamp::from_micros(now);
        let reading = group.decide(Commit::Together, at, &[0], counters)[0];
        if reading.passed {
            self.admitted.push((now, 1));
        }
        if let Some(until) = reading.leased_until {
            let spent = now + random.up_to(until.micros_since(at) - 1);
            self.admitted.push((spent, tokens));
        }
    }

    fn give_back(&mut self, now: u64, rule: Rule) {
        let at = Timestamp::from_micros(now);
        let (due, open) = self.open.drain(..).partition(|(_, _, due)| *due <= now);
        self.open = open;
        let due: Vec<(u64, u64, u64)> = due;
        for (hits, charged_at, _) in due {
            let charged_at = Timestamp::from_micros(charged_at);
            self.given_back += match rule {
                Rule::Receipt => {
                    self.counter.amend(&self.limit, &Change::GiveBack { hits, charged_at }, at)
                }
                Rule::Refund => {
                    u64::from(self.counter.step(&self.limit, Hits::Refund(hits), at).passed)
                }
            };
        }
    }

    /// True if some interval has more than the promise.
    fn is_over(&self) -> bool {
        let (requests, period) = (u64::from(self.limit.requests()), self.limit.period_micros());
        let capacity = self.limit.capacity();
        let sum = |within: &dyn Fn(u64) -> bool| -> u64 {
            self.admitted.iter().filter(|(at, _)| within(*at)).map(|(_, hits)| hits).sum()
        };
        self.admitted.iter().enumerate().any(|(i, &(from, _))| match self.limit.algorithm() {
            Algorithm::TokenBucket { .. } => self.admitted[i..].iter().any(|&(until, _)| {
                let hits = sum(&|at| (from..=until).contains(&at));
                hits * period > capacity * period + requests * (until - from)
            }),
            Algorithm::SlidingWindow { .. } => {
                sum(&|at| (from..from + period).contains(&at)) > capacity
            }
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                sum(&|at| at / period == from / period) > capacity
            }
        })
    }
}

/// The traces that are over the promise, and what was given back in all.
fn over(algorithm: usize, rule: Rule, delay: Delay) -> (usize, u64) {
    let (mut over, mut given_back) = (0, 0);
    for seed in 0..TRACES {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random, algorithm);
        world.run(&mut random, rule, delay);
        over += usize::from(world.is_over());
        given_back += world.given_back;
    }
    (over, given_back)
}

const SOON: Delay = Delay(3);
const LATE: Delay = Delay(80);

#[test]
fn charges_given_back_by_receipt_keep_the_promise() {
    for algorithm in 0..3 {
        for delay in [SOON, LATE] {
            let (over, given_back) = over(algorithm, Rule::Receipt, delay);
            assert_eq!(over, 0, "{algorithm} {delay:?}");
            assert!(given_back > 1_000, "{algorithm} {delay:?}: only {given_back}");
        }
    }
}

/// The oldest hits of a sliding window leave it first, so that giving those back at once is safe:
/// not a period later.
#[test]
fn charges_given_back_as_refunds_break_it() {
    for (algorithm, delay) in [(0, SOON), (0, LATE), (1, LATE), (2, SOON), (2, LATE)] {
        let (over, _) = over(algorithm, Rule::Refund, delay);
        assert!(over > 10, "{algorithm} {delay:?}: {over}");
    }
}
