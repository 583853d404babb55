//! Properties of the checker: its answers are those of a search over every interval and every
//! placement of the decisions, and real limiters are acquitted.

mod brute;
mod held;
mod limiters;

use std::time::Duration;

use super::trace::Call;
use super::{Line, Promise, Trace, Traces};
use crate::domain::{Algorithm, Charge, Limit, Timestamp};

use self::brute::Kind;

const CASES: u64 = 4_000;

/// A call of a few microseconds.
fn call(random: &mut fastrand::Rng, most_hits: u64) -> Call {
    let sent = random.u64(10..20);
    let span = random.choice([0, 0, 1, 2, 3]).unwrap();
    let at = Timestamp::from_micros;
    Call::new(at(sent), at(sent + span), random.u64(1..=most_hits))
}

fn calls(
    random: &mut fastrand::Rng,
    counts: std::ops::RangeInclusive<usize>,
    hits: u64,
) -> Vec<Call> {
    (0..random.usize(counts)).map(|_| call(random, hits)).collect()
}

/// A limit of a few hits in a few microseconds.
fn promise(random: &mut fastrand::Rng) -> Promise {
    let requests = random.u32(1..=3);
    let period = Duration::from_micros(random.u64(1..=12));
    let algorithm = match random.u32(..3) {
        0 => Algorithm::TokenBucket { burst: random.u32(1..=3) },
        1 => Algorithm::SlidingWindow { slots: random.u32(1..=3) },
        _ => Algorithm::FixedWindow,
    };
    Promise::new(Limit::new(requests, period, algorithm, Charge::Admitted).unwrap())
}

#[test]
fn worst_interval_is_that_of_a_search_over_all_intervals() {
    for seed in 0..CASES {
        let random = &mut fastrand::Rng::with_seed(seed);
        let refunded = if random.bool() { calls(random, 1..=2, 2) } else { Vec::new() };
        let trace = Trace {
            admitted: calls(random, 1..=5, 2),
            refused: Vec::new(),
            refunded,
            held: Vec::new(),
        };
        let promise = promise(random).times(random.u32(1..=2));
        let expected = Kind::of(&promise).worst_excess(&trace);
        let found = promise.worst(&trace);
        if let Some(worst) = found {
            let certain = |call: &&Call| call.sent >= worst.from && call.received <= worst.to;
            let hits: u64 = trace.admitted.iter().filter(certain).map(|call| call.hits).sum();
            assert_eq!(worst.hits, hits, "seed {seed}: {promise}, {trace:?}");
        }
        let found = found.map(|worst| {
            assert_eq!(worst.is_excess(), worst.excess() > 0.0);
            i128::from(worst.hits) * i128::from(worst.per) - worst.allowed
        });
        assert_eq!(found, expected, "seed {seed}: {promise}, {trace:?}");
    }
}

/// Traces of many blocks of the tree, against a quadratic search.
#[test]
fn worst_interval_of_a_long_trace_is_that_of_a_search() {
    for seed in 0..200 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let at = Timestamp::from_micros;
        let mut admitted: Vec<Call> = (0..random.usize(1..400))
            .map(|_| {
                let sent = random.u64(..2_000);
                Call::new(at(sent), at(sent + random.u64(..200)), random.u64(1..4))
            })
            .collect();
        let (rate, burst, period) = (random.u32(1..40), random.u32(1..10), random.u64(1..400));
        let algorithm = Algorithm::TokenBucket { burst };
        let limit = Limit::new(rate, Duration::from_micros(period), algorithm, Charge::Admitted);
        let trace = Trace { admitted: admitted.clone(), ..Trace::default() };
        let worst = Promise::new(limit.unwrap()).worst(&trace).unwrap();

        admitted.sort_unstable_by_key(|call| call.received);
        let mut expected = i128::MIN;
        for start in admitted.iter().map(|call| call.sent) {
            let mut hits = 0;
            for call in admitted.iter().filter(|call| call.sent >= start) {
                hits += i128::from(call.hits);
                let refilled = i128::from(rate) * i128::from(call.received - start);
                let excess = (hits - i128::from(burst)) * i128::from(period) - refilled;
                expected = expected.max(excess);
            }
        }
        let found = i128::from(worst.hits) * i128::from(worst.per) - worst.allowed;
        assert_eq!(found, expected, "seed {seed}");
    }
}

#[test]
fn nothing_is_convicted_that_some_placement_explains() {
    let (mut convicted, mut missed, mut cases) = (0, 0, 0);
    for seed in 0..CASES {
        let random = &mut fastrand::Rng::with_seed(seed);
        let trace = Trace { admitted: calls(random, 1..=4, 1), ..Trace::default() };
        let promise = promise(random);
        let keeps =
            brute::placements(&trace.admitted).any(|placed| Kind::of(&promise).keeps(&placed));
        let held = promise.check(&trace).is_ok();
        assert!(held || !keeps, "seed {seed}: {promise}, {trace:?}");
        cases += 1;
        convicted += u64::from(!held);
        missed += u64::from(held && !keeps);
    }
    assert!(convicted > cases / 10, "{convicted} convicted");
    // An excess of about one hit may hide in the time that answers take.
    assert!(missed < cases / 40, "{missed} of {cases} missed");
}

#[test]
fn refusals_are_needless_where_every_placement_has_room() {
    let (mut needless, mut cases) = (0, 0);
    for seed in 0..CASES {
        let random = &mut fastrand::Rng::with_seed(seed);
        let (admitted, refused) = (calls(random, 0..=3, 2), calls(random, 1..=1, 2));
        let promise = promise(random);
        let kind = Kind::of(&promise);
        let refusal = refused[0];
        let fits = brute::placements(&admitted).all(|placed| {
            (refusal.sent..=refusal.received).all(|now| kind.fits(&placed, now, refusal.hits))
        });
        let trace = Trace { admitted, refused, ..Trace::default() };
        let found = promise.finding(&trace).needless;
        assert_eq!(found, Some(usize::from(fits)), "seed {seed}: {promise}, {trace:?}");
        cases += 1;
        needless += usize::from(fits);
    }
    assert!(needless > cases / 10 && needless < cases * 9 / 10, "{needless} of {cases}");
}

#[test]
fn a_larger_clock_error_convicts_less() {
    let trace = |error: u64| {
        let mut trace = Trace::default();
        for sent in [1_000, 2_000, 3_000] {
            let call =
                Call::new(Timestamp::from_micros(sent), Timestamp::from_micros(sent + 10), 1);
            trace.admitted.push(call.widened(Duration::from_micros(error)));
        }
        trace
    };
    let limit = Limit::new(
        2,
        Duration::from_micros(2_011),
        Algorithm::SlidingWindow { slots: 1 },
        Charge::Admitted,
    );
    let promise = Promise::new(limit.unwrap());
    assert!(promise.check(&trace(0)).is_err());
    assert!(promise.check(&trace(1)).is_ok());
}
