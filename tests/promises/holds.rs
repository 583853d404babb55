//! The promise while requests are settled by what they have cost: late, never, twice, and beyond
//! their estimate.
//!
//! The oracle counts the cost of each request at its admission: the estimate until it is settled,
//! and what it has cost from then on. It knows nothing of counters, but for what a bucket gave
//! back, which the promise allows for.

use std::time::Duration;

use tollgate::domain::{
    Algorithm, Change, Charge, Counter, Guard, Hits, HoldId, Key, Limit, Settled, Settlement,
    Timestamp,
};
use tollgate::store::MemoryStore;

use crate::random::Random;

const START: u64 = 1_700_000_000_000_000;
const TRACES: u64 = 600;

/// A way to settle.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// By the difference, as of the charge.
    Difference,
    /// Gives the oldest hits back, whenever they were charged.
    OldestFirst,
    /// Gives the estimate back, and charges the cost.
    TwoSteps,
}

#[derive(Clone, Copy, Debug)]
struct Mishaps {
    /// Percent of settlements that come twice, and whether a guard lets the second one take effect.
    doubled: u64,
    guarded: bool,
    /// Costs may exceed their estimates.
    beyond: bool,
}

/// A request that was admitted.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: u64,
    estimate: u64,
    cost: u64,
    /// The time at which it was settled.
    settled: Option<u64>,
}

impl Held {
    /// The hits that count: the estimate until the cost is known.
    fn counts(&self) -> u64 {
        if self.settled.is_some() { self.cost } else { self.cost.max(self.estimate) }
    }
}

struct World {
    limit: Limit,
    counter: Counter,
    held: Vec<Held>,
    /// Settlements to come: their time and their request.
    due: Vec<(u64, usize)>,
    /// Hits that a bucket gave back: when it was charged, when it was given back, and the hits.
    returned: Vec<(u64, u64, u64)>,
}

fn limit(random: &mut Random, algorithm: usize) -> Limit {
    let requests = 4 + random.up_to(36) as u32;
    let period = Duration::from_micros(8 + random.up_to(52));
    let algorithm = [
        Algorithm::TokenBucket { burst: requests },
        Algorithm::SlidingWindow { slots: random.pick(&[2, 3, 10]) },
        Algorithm::FixedWindow,
    ][algorithm];
    // A hit of a bucket refills in a microsecond.
    let period = match algorithm {
        Algorithm::TokenBucket { .. } => Duration::from_micros(requests.into()),
        _ => period,
    };
    let max_debt = Some(10 * u64::from(requests));
    Limit::new(requests, period, algorithm, Charge::Held { max_debt }).unwrap()
}

impl World {
    fn run(random: &mut Random, algorithm: usize, rule: Rule, mishaps: Mishaps) -> Self {
        let limit = limit(random, algorithm);
        let (held, due, returned) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { limit, counter: Counter::Empty, held, due, returned };
        let (latest, busy) = (random.pick(&[1, 5, 20, 80]), random.pick(&[10, 33, 90]));
        let most = random.pick(&[1, 3, u64::from(limit.requests())]);
        for now in START..START + 120 {
            world.settle_due(now, rule);
            while random.chance(busy) {
                let estimate = 1 + random.up_to(most - 1);
                let cost = if mishaps.beyond && random.chance(20) {
                    estimate + random.up_to(estimate)
                } else {
                    random.up_to(estimate)
                };
                if !world.take(estimate, now) {
                    break;
                }
                world.held.push(Held { at: now, estimate, cost, settled: None });
                let request = world.held.len() - 1;
                // One of ten is never settled.
                if random.chance(90) {
                    let at = now + 1 + random.up_to(latest);
                    world.due.push((at, request));
                    if random.chance(mishaps.doubled) && !mishaps.guarded {
                        world.due.push((at + 1 + random.up_to(4), request));
                    }
                }
            }
        }
        world
    }

    fn take(&mut self, hits: u64, now: u64) -> bool {
        self.counter.step(&self.limit, Hits::Take(hits), Timestamp::from_micros(now)).passed
    }

    fn settle_due(&mut self, now: u64, rule: Rule) {
        let (due, later) = self.due.drain(..).partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(u64, usize)> = due;
        for (_, request) in due {
            let Held { at, estimate, cost, .. } = self.held[request];
            let given = self.settle(rule, (at, estimate, cost), Timestamp::from_micros(now));
            self.returned.push((at, now, given));
            self.held[request].settled.get_or_insert(now);
        }
    }

    /// Returns the hits that were given back.
    fn settle(&mut self, rule: Rule, (at, estimate, cost): (u64, u64, u64), now: Timestamp) -> u64 {
        let charged_at = Timestamp::from_micros(at);
        match rule {
            Rule::Difference => {
                let Some(change) = Change::settle(estimate, cost, charged_at) else { return 0 };
                let amount = self.counter.amend(&self.limit, &change, now);
                if matches!(change, Change::Return { .. }) { amount } else { 0 }
            }
            Rule::OldestFirst => {
                self.counter.step(&self.limit, Hits::Refund(estimate.saturating_sub(cost)), now);
                0
            }
            Rule::TwoSteps => {
                let change = Change::Return { hits: estimate, charged_at };
                let given = self.counter.amend(&self.limit, &change, now);
                self.counter.amend(&self.limit, &Change::Charge { hits: cost }, now);
                given.saturating_sub(cost)
            }
        }
    }

    /// Hits beyond the promise in the worst interval.
    fn excess(&self) -> u64 {
        let period = self.limit.period_micros();
        let mut worst = 0;
        for (i, first) in self.held.iter().enumerate() {
            let (mut used, from) = (0, first.at);
            for (n, held) in self.held[i..].iter().enumerate() {
                let window = match self.limit.algorithm() {
                    Algorithm::TokenBucket { .. } => u64::MAX,
                    Algorithm::FixedWindow => period - from % period,
                    Algorithm::SlidingWindow { .. } | Algorithm::Concurrency => period,
                };
                if held.at - from >= window {
                    break;
                }
                used += held.counts();
                let refilled = if window == u64::MAX { held.at - from } else { 0 };
                let plain = self.limit.capacity() + refilled;
                // The rest of the promise takes longer to work out.
                if used > plain + worst {
                    let more = Self::open(&self.held[i..=i + n]) + self.returned(from, held.at);
                    worst = worst.max(used.saturating_sub(plain + more));
                }
            }
        }
        worst
    }

    /// The hits of `held` beyond their estimates, of those not yet settled when the last of them
    /// was admitted.
    fn open(held: &[Held]) -> u64 {
        let last = held.last().map_or(0, |held| held.at);
        let late = held.iter().filter(|held| held.settled.is_none_or(|at| at >= last));
        late.map(|held| held.cost.saturating_sub(held.estimate)).sum()
    }

    /// The hits that a bucket gave back in this time for requests admitted before it.
    fn returned(&self, from: u64, until: u64) -> u64 {
        if !matches!(self.limit.algorithm(), Algorithm::TokenBucket { .. }) {
            return 0;
        }
        let of_earlier =
            |(at, when, _): &&(u64, u64, u64)| *at < from && (from..=until).contains(when);
        self.returned.iter().filter(of_earlier).map(|(_, _, hits)| hits).sum()
    }
}

/// The traces that are over the promise.
fn over(algorithm: usize, rule: Rule, mishaps: Mishaps) -> usize {
    let is_over =
        |seed: &u64| World::run(&mut Random::new(*seed), algorithm, rule, mishaps).excess() > 0;
    (0..TRACES).filter(is_over).count()
}

const CALM: Mishaps = Mishaps { doubled: 0, guarded: true, beyond: false };

#[test]
fn settlements_keep_the_promise_however_late_or_lost() {
    for algorithm in 0..3 {
        for beyond in [false, true] {
            let mishaps = Mishaps { beyond, ..CALM };
            assert_eq!(over(algorithm, Rule::Difference, mishaps), 0, "{algorithm}, {mishaps:?}");
        }
    }
}

#[test]
fn other_rules_are_over_it() {
    let unguarded = Mishaps { doubled: 10, guarded: false, ..CALM };
    for algorithm in 0..3 {
        assert!(over(algorithm, Rule::Difference, unguarded) > 10, "doubled, of {algorithm}");
    }
    assert!(over(1, Rule::OldestFirst, CALM) > 5, "the oldest hits of a window");
    assert!(over(2, Rule::OldestFirst, CALM) > 5, "hits of another window");
}

/// To give the estimate back and then charge the cost is no way out: where the bucket has refilled
/// meanwhile, the cost is charged a second time.
#[test]
fn two_steps_let_less_through() {
    let admitted = |rule| -> usize {
        let held = |seed| World::run(&mut Random::new(seed), 0, rule, CALM).held.len();
        (0..TRACES).map(held).sum()
    };
    assert!(admitted(Rule::TwoSteps) < admitted(Rule::Difference));
}

#[test]
fn store_settles_each_hold_once() {
    let clock = std::sync::Arc::new(tollgate::domain::ManualClock::default());
    clock.set(Timestamp::from_micros(START));
    let store = MemoryStore::new(64, std::sync::Arc::clone(&clock));
    let algorithm = Algorithm::FixedWindow;
    let charge = Charge::Held { max_debt: None };
    let limit = Limit::new(10, Duration::from_hours(1), algorithm, charge).unwrap();
    let key = Key::new(&b"k"[..]);
    let used = |change| {
        let amendment = tollgate::domain::Amendment { key: key.clone(), limit, change };
        store.amend(std::slice::from_ref(&amendment))[0]
    };
    used(Change::Charge { hits: 9 });
    let charged_at = Timestamp::from_micros(START);
    let guard = Guard {
        key: Key::new(&b"settled"[..]),
        id: HoldId::from_random(1 << 20),
        expires_at: charged_at.plus_micros(1_000),
        kept_until: charged_at.plus_micros(2_000),
    };
    let change = Change::settle(4, 1, charged_at).unwrap();
    let amendments = vec![tollgate::domain::Amendment { key: key.clone(), limit, change }];
    let settlement = Settlement { guard, amendments };
    let settled = [(); 2].map(|()| store.settle_now(&settlement));
    assert_eq!(settled, [Settled::Now, Settled::Again]);
    assert_eq!(used(Change::Return { hits: 100, charged_at }), 6, "three of nine were given back");
    clock.set(settlement.guard.expires_at);
    assert_eq!(store.settle_now(&settlement), Settled::Late);
}

/// A request of a trace: when it comes, how long it takes, and what it costs of at most four hits.
type Work = (u64, u64, u64);

fn work(random: &mut Random) -> Vec<Work> {
    let mut now = START;
    let each = (0..60).map(|_| {
        now += random.up_to(3);
        (now, 1 + random.up_to(20), 1 + random.up_to(3))
    });
    each.collect()
}

/// Hits of the requests that were admitted beyond a window's limit of 20, where `begin` admits at a
/// time, and `end` says what a request that began at the first time has cost.
fn overdraft(
    work: &[Work],
    limit: &Limit,
    begin: impl Fn(&mut Counter, Timestamp) -> bool,
    end: impl Fn(&mut Counter, Timestamp, u64, Timestamp),
) -> u64 {
    let (mut counter, mut open, mut used) = (Counter::Empty, Vec::<Work>::new(), 0);
    for &(at, takes, cost) in work {
        open.sort_unstable_by_key(|(began, takes, _)| began + takes);
        while let Some(&(began, takes, cost)) = open.first()
            && began + takes <= at
        {
            let (began, now) =
                (Timestamp::from_micros(began), Timestamp::from_micros(began + takes));
            end(&mut counter, began, cost, now);
            open.remove(0);
        }
        if begin(&mut counter, Timestamp::from_micros(at)) {
            used += cost;
            open.push((at, takes, cost));
        }
    }
    used.saturating_sub(limit.capacity())
}

/// A peek before and a report after let requests at the same time overdraw a limit together; an
/// estimate that is held does not.
#[test]
fn requests_at_the_same_time_overdraw_what_is_only_peeked_at() {
    let window = Duration::from_hours(1);
    let limit = |charge| Limit::new(20, window, Algorithm::FixedWindow, charge).unwrap();
    let settled = limit(Charge::Settled { max_debt: None });
    let held = limit(Charge::Held { max_debt: None });
    let mut peeked = 0;
    for seed in 0..200 {
        let work = work(&mut Random::new(seed));
        let of_peeks = overdraft(
            &work,
            &settled,
            |counter, now| counter.step(&settled, Hits::Peek(1), now).passed,
            |counter, _, cost, now| _ = counter.step(&settled, Hits::Book(cost), now),
        );
        peeked += usize::from(of_peeks > 0);
        let of_holds = overdraft(
            &work,
            &held,
            |counter, now| counter.step(&held, Hits::Take(4), now).passed,
            |counter, began, cost, now| {
                if let Some(change) = Change::settle(4, cost, began) {
                    counter.amend(&held, &change, now);
                }
            },
        );
        assert_eq!(of_holds, 0, "seed {seed}");
    }
    assert!(peeked > 150, "only {peeked} of 200 traces overdraw it");
}
