//! Several limits in turn on one counter: a roll-out, or a client changed back and forth.
//!
//! The promise: the largest of them bounds all admissions together, whatever the others ask, deny or peek. Held for
//! the core, the memory store and the script on the same interleavings, by an oracle that knows only limits, times
//! and admissions.

use std::time::Duration;

use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Group, Hits, Key, LeaseAsk, Limit, Part, Timestamp,
};
use tollgate::store::redis::script::Script;

use super::compare::{Model, Way, compare_trace, load};
use super::memory::memory_agrees;
use super::random::Random;
use super::redis_server::RedisServer;
use super::traces::{Step, Trace};

const INTERLEAVINGS: u64 = 10_000;
const START: u64 = 1_795_000_000_000_000;

/// Hits that were admitted, leased ones included.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Admission {
    /// Microseconds, of which a step back of the clock takes none.
    at: u64,
    limit: Limit,
    hits: u64,
}

/// One interleaving: a trace of single claims on one key.
struct Interleaving {
    trace: Trace,
    limits: Vec<Limit>,
    /// Time moves forwards only.
    forwards: bool,
}

impl Interleaving {
    fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let period = random.pick(&[1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000]);
        let shape = random.up_to(2);
        let limits: Vec<Limit> =
            (0..2 + random.up_to(1)).map(|_| limit(&mut random, shape, period)).collect();
        let forwards = shape > 0 || random.chance(60);
        let key = Key::new(format!("turns:{seed}").into_bytes());
        let mut now = START + random.up_to(period);
        let steps = (0..30).map(|_| {
            now = match random.up_to(9) {
                0..=3 => now,
                4..=6 => now + random.up_to(period / 50),
                7 => now + random.up_to(period),
                8 => now + random.up_to(3 * period),
                _ if forwards => now,
                _ => now - random.up_to(2 * period),
            };
            let limit = random.pick(&limits);
            let claim =
                Claim { key: key.clone(), limit, hits: hits(&mut random, &limit), lease: None };
            Step { now: Timestamp::from_micros(now), groups: vec![one(lease(&mut random, claim))] }
        });
        let steps = steps.collect();
        Self { trace: Trace { keys: vec![key], steps }, limits, forwards }
    }

    /// What the core admits.
    fn admitted(&self) -> Vec<Admission> {
        let mut model = Model::default();
        let (mut at, mut before) = (START, START);
        let mut admitted = Vec::new();
        for step in &self.trace.steps {
            let now = step.now.as_micros();
            at += now.saturating_sub(before);
            before = now;
            let (group, commit) = &step.groups[0];
            let claim = &group.claims[0];
            let reading = model.decide(group, *commit, step.now)[0];
            if let (Hits::Take(hits), true) = (claim.hits, reading.passed) {
                let granted = reading.leased_until.is_some();
                let leased = claim.lease.as_ref().filter(|_| granted).map_or(0, |ask| ask.tokens);
                admitted.push(Admission { at, limit: claim.limit, hits: hits + leased });
            }
        }
        admitted
    }
}

fn limit(random: &mut Random, shape: u64, period: u64) -> Limit {
    let few = 1 + random.up_to(9) as u32;
    let requests = random.pick(&[few, few * 10, few * 100]);
    let burst = random.pick(&[requests, few, requests * 2]);
    let algorithm = match shape {
        0 => Algorithm::TokenBucket { burst },
        1 => Algorithm::SlidingWindow { slots: 5 },
        _ => Algorithm::FixedWindow,
    };
    let charge = match random.up_to(4) {
        0 => Charge::Always { max_debt: Some(u64::from(few)) },
        _ => Charge::Admitted,
    };
    Limit::new(requests, Duration::from_micros(period), algorithm, charge).unwrap()
}

fn hits(random: &mut Random, limit: &Limit) -> Hits {
    match random.up_to(5) {
        0 => Hits::Peek(1),
        1 => Hits::Take(limit.capacity()),
        2 => Hits::Take(1 + random.up_to(2 * limit.capacity())),
        _ => Hits::Take(1 + random.up_to(3)),
    }
}

fn lease(random: &mut Random, mut claim: Claim) -> Claim {
    let bucket = matches!(claim.limit.algorithm(), Algorithm::TokenBucket { .. });
    if bucket && !claim.limit.always_charges() && random.chance(30) {
        let most = claim.limit.capacity();
        let tokens = 1 + random.up_to(most - 1);
        claim.lease = Some(Box::new(LeaseAsk {
            tokens,
            most,
            ttl: Duration::from_millis(100),
            finished: None,
        }));
    }
    claim
}

fn one(claim: Claim) -> (Group, Commit) {
    let part = Part { quota: false, shadow: false, claims: 0..1 };
    (Group { parts: vec![part], claims: vec![claim] }, Commit::Together)
}

/// An admission that breaks the promise: for buckets that of the largest of `limits`, for windows that of its own.
fn excess<'a>(limits: &[Limit], admitted: &'a [Admission]) -> Option<&'a Admission> {
    (1..=admitted.len()).find_map(|end| {
        let (last, until) = (admitted[end - 1], &admitted[..end]);
        let holds = match last.limit.algorithm() {
            Algorithm::TokenBucket { .. } => bucket_holds(limits, until),
            Algorithm::SlidingWindow { .. } => {
                window_holds(until, |at| at + last.limit.period_micros() > last.at)
            }
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                let window = |at| at / last.limit.period_micros();
                window_holds(until, |at| window(at) == window(last.at))
            }
        };
        (!holds).then(|| &admitted[end - 1])
    })
}

/// Whether every interval that ends with the last admission has at most burst + rate * t of the largest limit.
fn bucket_holds(limits: &[Limit], admitted: &[Admission]) -> bool {
    let largest = |of: fn(&Limit) -> u64| limits.iter().map(of).max().unwrap_or(0);
    let capacity = u128::from(largest(Limit::capacity));
    let rate = u128::from(largest(|limit| limit.requests().into()));
    let Some(last) = admitted.last() else { return true };
    let period = u128::from(last.limit.period_micros());
    let mut sum = 0;
    admitted.iter().rev().all(|admission| {
        sum += u128::from(admission.hits);
        sum * period <= capacity * period + rate * u128::from(last.at - admission.at)
    })
}

/// Whether the admissions in the window of the last are at most its limit.
fn window_holds(admitted: &[Admission], in_window: impl Fn(u64) -> bool) -> bool {
    let in_window = admitted.iter().filter(|admission| in_window(admission.at));
    let sum: u64 = in_window.map(|admission| admission.hits).sum();
    admitted.last().is_none_or(|last| sum <= last.limit.capacity())
}

#[test]
fn largest_limit_bounds_all_admissions_together() {
    let mut admissions = 0;
    for seed in 0..INTERLEAVINGS {
        let interleaving = Interleaving::of_seed(seed);
        let admitted = interleaving.admitted();
        admissions += admitted.len();
        assert_eq!(
            excess(&interleaving.limits, &admitted),
            None,
            "seed {seed}: {:#?}",
            interleaving.trace
        );
    }
    assert!(admissions > 50_000, "only {admissions} admissions");
}

#[test]
fn memory_store_decides_the_same() {
    for seed in 0..INTERLEAVINGS {
        let Interleaving { trace, forwards, .. } = Interleaving::of_seed(seed);
        // A counter that was dropped when it was empty does not come back with the clock.
        if forwards {
            memory_agrees(&trace, seed);
        }
    }
}

#[test]
fn script_decides_the_same() {
    let Some(server) = RedisServer::start() else { return };
    let script = Script::with_manual_time(Script::DECIDE.text);
    let mut connection = server.connection();
    load(&mut connection, &script);
    for seed in 0..INTERLEAVINGS {
        let Interleaving { trace, .. } = Interleaving::of_seed(seed);
        for way in [Way::Any, Way::Long] {
            if let Err(difference) = compare_trace(&mut connection, &script, &trace, way) {
                panic!("seed {seed}, {way:?}: {difference:?}\n{trace:#?}");
            }
        }
    }
}

/// 500 an hour, and what else acts on the same bucket within a second: how many of the 500 are left afterwards.
fn left_of_500(others: impl Fn(&mut Model, &dyn Fn(u32, Charge, Hits) -> Group)) -> [u64; 2] {
    let now = Timestamp::from_micros(START);
    let group = |requests, charge, hits| {
        let algorithm = Algorithm::TokenBucket { burst: requests };
        let limit = Limit::new(requests, Duration::from_hours(1), algorithm, charge).unwrap();
        one(Claim { key: Key::new(&b"k"[..]), limit, hits, lease: None }).0
    };
    let mut model = Model::default();
    let taken = |model: &mut Model| {
        let take = group(500, Charge::Admitted, Hits::Take(1));
        let step = |_: &u32| model.decide(&take, Commit::Together, now)[0].passed;
        (0..1_000).take_while(step).count() as u64
    };
    let first = taken(&mut model);
    others(&mut model, &group);
    [first, taken(&mut model)]
}

#[test]
fn smaller_limit_forgives_nothing() {
    let now = Timestamp::from_micros(START);
    let debt = Charge::Always { max_debt: Some(10) };
    let cases = [
        (Charge::Admitted, Hits::Take(1)),
        (Charge::Admitted, Hits::Take(1_000)),
        (Charge::Admitted, Hits::Peek(1)),
        (debt, Hits::Peek(1)),
        (debt, Hits::Take(3)),
    ];
    for (charge, hits) in cases {
        let left = left_of_500(|model, group| {
            for requests in [1, 5] {
                let reading =
                    model.decide(&group(requests, charge, hits), Commit::Together, now)[0];
                assert!(!reading.passed && reading.remaining == 0, "{reading:?}");
            }
        });
        assert_eq!(left, [500, 0], "{charge:?} {hits:?}");
    }
    let refunded = left_of_500(|model, group| {
        model.decide(&group(1, Charge::Admitted, Hits::Refund(2)), Commit::Together, now);
    });
    // Converted to one an hour and back, each time rounded up.
    assert_eq!(refunded, [500, 1], "a refund of two gives no more than two");
}
