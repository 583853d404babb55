use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::domain::{Algorithm, Charge, Counter, Key, Timestamp, Unit};
use crate::limiter::ask::Traits;
use crate::limiter::report::Report;
use crate::telemetry::metrics::LimitOf;

const BURST_OF_TEN: Algorithm = Algorithm::TokenBucket { burst: 10 };

fn limit(requests: u32, seconds: u64, algorithm: Algorithm) -> Limit {
    Limit::new(requests, Duration::from_secs(seconds), algorithm, Charge::Admitted).unwrap()
}

fn claim(limit: Limit, hits: Hits) -> Claim {
    Claim { key: Key::new(&b"k"[..]), limit, hits, lease: None }
}

/// The slots of one of so many replicas.
fn slots(replicas: u32) -> RetrySlots {
    let beats = Replicas::new(0, None);
    beats.note(&(0..u128::from(replicas)).collect::<Vec<_>>());
    RetrySlots::new(Arc::new(beats))
}

/// The tries until 500 callers that come within 0.2 s and obey are served, and the seconds until
/// then. Each comes back up to 2 ms after the time that it was told by the replica that it met.
fn stampede(limit: Limit, replicas: &[RetrySlots]) -> (u32, f64) {
    const CALLERS: u32 = 500;
    let mut random = fastrand::Rng::with_seed(1);
    let (start, mut counter) = (Instant::now(), Counter::Empty);
    let claim = claim(limit, Hits::Take(1));
    let arrivals = (0..CALLERS).map(|_| Reverse(random.u64(0..200_000)));
    let mut arrivals: BinaryHeap<Reverse<u64>> = arrivals.collect();
    let (mut tries, mut last) = (0, 0);
    while let Some(Reverse(at)) = arrivals.pop() {
        (tries, last) = (tries + 1, at);
        // In the middle of nowhere, so that windows do not begin with the callers.
        let now = Timestamp::from_micros(1_700_000_012_345_678 + at);
        let reading = counter.step(&limit, claim.hits, now);
        if reading.passed {
            continue;
        }
        let fit = reading.retry_after.unwrap();
        let replica = (!replicas.is_empty()).then(|| &replicas[random.usize(0..replicas.len())]);
        let at_instant = start + Duration::from_micros(at);
        let told = replica.map_or(fit, |slots| slots.slot(&claim, fit, at_instant).unwrap());
        arrivals.push(Reverse(at + told.as_micros() as u64 + 1 + random.u64(0..2_000)));
    }
    (tries, last as f64 / 1e6)
}

#[test]
fn callers_that_obey_come_back_one_after_the_other() {
    // Ten a second: 500 callers need 490 retries at least, and 49 s.
    let bucket = limit(600, 60, BURST_OF_TEN);
    let (alike, _) = stampede(bucket, &[]);
    assert!(alike > 100_000, "told the same instant: {alike} tries");
    for (replicas, most_tries, most_seconds) in [(1, 1_000, 50.0), (3, 1_100, 55.0)] {
        let all: Vec<RetrySlots> = (0..replicas).map(|_| slots(replicas)).collect();
        let (tries, seconds) = stampede(bucket, &all);
        assert!((990..=most_tries).contains(&tries), "{replicas} replicas: {tries} tries");
        assert!(seconds <= most_seconds, "{replicas} replicas: {seconds} s");
    }
    // Without the number of replicas each tells slots that are too near.
    let (tries, _) = stampede(bucket, &[slots(1), slots(1), slots(1)]);
    assert!(tries > 1_200, "{tries} tries");
}

#[test]
fn nobody_is_told_more_than_a_period_beyond_its_time() {
    // The same rate, but slots for a second only: the rest comes back every second.
    let (tries, seconds) = stampede(limit(10, 1, BURST_OF_TEN), &[slots(1)]);
    assert!((5_000..=13_000).contains(&tries) && seconds <= 50.0, "{tries} tries in {seconds} s");
    let day = limit(86_400, 86_400, BURST_OF_TEN);
    let (slots, now) = (slots(1), Instant::now());
    let told = (0..100).map(|_| slots.slot(&claim(day, Hits::Take(1)), SECOND, now).unwrap());
    assert_eq!(told.max(), Some(SECOND + MAX_SPREAD));
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn slots_are_as_long_as_the_hits_and_end_with_their_time() {
    for algorithm in [BURST_OF_TEN, Algorithm::FixedWindow, Algorithm::SlidingWindow { slots: 3 }] {
        let (slots, start) = (slots(2), Instant::now());
        // All in milliseconds.
        let ask = |hits, fit, at| {
            let claim = claim(limit(30, 60, algorithm), Hits::Take(hits));
            let now = start + Duration::from_millis(at);
            slots.slot(&claim, Duration::from_millis(fit), now).unwrap().as_millis()
        };
        // A hit is worth two seconds, for each of two replicas.
        let first = [ask(1, 2_000, 0), ask(1, 2_000, 0), ask(3, 2_000, 0)];
        assert_eq!(first, [2_000, 6_000, 18_000], "{algorithm:?}");
        // The last one is 18 s after the start.
        assert_eq!([ask(1, 1_000, 1_000), ask(1, 500, 10_000)], [21_000, 16_000]);
        assert_eq!(ask(1, 40_000, 10_000), 40_000, "never before the hits fit");
        assert_eq!(ask(1, 2_000, 60_000), 2_000, "the slots are over");
    }
}

#[test]
fn slot_of_a_time_that_is_no_longer_true_does_not_count() {
    let (slots, now) = (slots(1), Instant::now());
    let told = |fit| slots.slot(&claim(limit(10, 1, BURST_OF_TEN), Hits::Take(1)), fit, now);
    assert_eq!(told(100 * SECOND), Some(100 * SECOND));
    assert_eq!(told(SECOND), Some(SECOND), "hits were given back");
    assert_eq!(told(SECOND), Some(SECOND + SECOND / 10));
}

/// The waits that the claims of a request report, each of a descriptor of its own.
fn told(slots: &RetrySlots, claims: &[(Hits, bool, Ruling)], now: Instant) -> Vec<Option<u64>> {
    let mut ask = Ask::default();
    for (i, (hits, shadow, _)) in claims.iter().enumerate() {
        let of = LimitOf::Rule(0);
        let report = Report {
            requests_per_unit: 1,
            unit: Unit::Second,
            unit_multiplier: 1,
            name: None,
            of,
            concurrent: false,
        };
        ask.push(claim(limit(60, 60, Algorithm::FixedWindow), *hits), Traits::default(), report);
        ask.close_part(i, false, *shadow);
    }
    ask.rule(claims.iter().map(|(_, _, ruling)| *ruling).collect());
    slots.spread(&mut ask, now);
    let wait = |ruling: &Ruling| ruling.reading.retry_after.map(|wait| wait.as_secs());
    ask.records().iter().map(|asked| wait(asked.ruling())).collect()
}

#[test]
fn only_denied_hits_with_a_time_of_their_own_get_slots() {
    let (slots, now) = (slots(1), Instant::now());
    let denied = |wait| {
        let mut reading = Ruling::uncounted(false).reading;
        reading.retry_after = wait;
        Ruling::from(reading)
    };
    let (take, fits) = (Hits::Take(1), denied(Some(5 * SECOND)));
    let all = [
        (take, false, fits),
        (take, true, fits),
        (Hits::Peek(1), false, fits),
        (take, false, denied(None)),
        (take, false, Ruling::uncounted(false)),
        (take, false, fits),
    ];
    let found = told(&slots, &all, now);
    assert_eq!(found, [Some(5), Some(5), Some(5), None, Some(1), Some(6)]);
    assert_eq!(told(&slots, &all[..1], now), [Some(7)]);
}
