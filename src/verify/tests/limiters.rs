//! Traces of the real algorithms, and of wrong ones.

use std::time::Duration;

use crate::domain::{Algorithm, Charge, Counter, Hits, Limit, Timestamp};
use crate::verify::{Promise, Trace};

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, algorithm: Algorithm) -> Limit {
    Limit::new(requests, SECOND, algorithm, Charge::Admitted).unwrap()
}

/// Decisions of a limit on one request every 5 ms for 3 s that begin 300 ms before the edge of a
/// window. Answers take `answer` microseconds.
fn trace(limit: &Limit, answer: u64) -> Trace {
    let (mut counter, mut trace) = (Counter::Empty, Trace::default());
    for i in 0..600 {
        let now = Timestamp::from_micros(1_700_000_000_700_000 + i * 5_000);
        let passed = counter.step(limit, Hits::Take(1), now).passed;
        let add = if passed { Trace::admit } else { Trace::refuse };
        add(&mut trace, now, now.plus_micros(answer), 1);
    }
    trace
}

#[test]
fn the_edge_of_a_fixed_window_is_convicted_as_sliding() {
    let fixed = trace(&limit(50, Algorithm::FixedWindow), 900);
    let sliding = limit(50, Algorithm::SlidingWindow { slots: 10 });
    let broken = Promise::new(sliding).check(&fixed).unwrap_err();
    assert_eq!((broken.worst.hits, broken.worst.allowed()), (100, 50.0), "{broken}");
    Promise::new(sliding).check(&trace(&sliding, 900)).unwrap();
    Promise::new(sliding).times(2).check(&fixed).unwrap();
}

#[test]
fn each_algorithm_keeps_its_promise_and_not_half_of_it() {
    for (whole, half) in [
        ("fixed_window 50/s", "fixed_window 49/s"),
        ("sliding_window 50/s", "sliding_window 49/s"),
        ("token_bucket 50/s burst 50", "token_bucket 50/s burst 25"),
        ("token_bucket 50/s burst 50", "token_bucket 25/s burst 50"),
    ] {
        let promise = |text: &str| text.parse::<Promise>().unwrap();
        let trace = trace(promise(whole).limit(), 900);
        promise(whole).check(&trace).unwrap();
        assert!(promise(half).check(&trace).is_err(), "{half}");
    }
}

#[test]
fn exact_limiters_are_efficient_and_refuse_nothing_needlessly() {
    for text in ["fixed_window 50/s", "token_bucket 50/s burst 20", "sliding_window 50/s slots 50"]
    {
        let promise: Promise = text.parse().unwrap();
        let finding = promise.finding(&trace(promise.limit(), 0));
        assert!(finding.holds() && finding.refused > 300, "{text}: {finding:?}");
        assert_eq!((finding.needless, finding.efficiency()), (Some(0), Some(1.0)), "{text}");
    }
}

#[test]
fn a_limiter_of_half_the_rate_refuses_needlessly() {
    for (promised, real) in [
        ("fixed_window 50/s", "fixed_window 25/s"),
        ("token_bucket 50/s burst 20", "token_bucket 25/s burst 10"),
        ("sliding_window 50/s", "sliding_window 25/s"),
    ] {
        let [promised, real] = [promised, real].map(|text| text.parse::<Promise>().unwrap());
        let finding = promised.finding(&trace(real.limit(), 300));
        assert!(finding.holds(), "{promised}");
        assert!(finding.needless > Some(finding.refused / 3), "{promised}: {finding:?}");
        let efficiency = finding.efficiency().unwrap();
        assert!((0.4..0.7).contains(&efficiency), "{promised}: {finding:?}");
    }
}

/// A rate that is 1 % too high shows over many windows only.
#[test]
fn a_rate_that_is_wrong_by_little_is_convicted_over_several_windows() {
    let promise = Promise::new(limit(1_000, Algorithm::SlidingWindow { slots: 10 }));
    let mut trace = Trace::default();
    for i in 0..10_100 {
        let now = Timestamp::from_micros(1_700_000_000_000_000 + i * 1_000_000 / 1_010);
        trace.admit(now.minus_micros(10_000), now.plus_micros(10_000), 1);
    }
    let worst = promise.check(&trace).unwrap_err().worst;
    assert!(worst.length() > 7 * SECOND, "{worst}");
}

#[test]
fn hits_given_back_may_be_admitted_again() {
    let at = Timestamp::from_micros;
    for text in ["fixed_window 2/s", "token_bucket 2/s burst 2", "sliding_window 2/s"] {
        let promise: Promise = text.parse().unwrap();
        let mut trace = Trace::default();
        for sent in [10, 20, 30] {
            trace.admit(at(sent), at(sent + 5), 1);
        }
        assert!(promise.check(&trace).is_err(), "{text}");
        let mut earlier = trace.clone();
        earlier.refund(at(1), at(9), 1);
        assert!(promise.check(&earlier).is_err() || text.starts_with("fixed"), "{text}");
        trace.refund(at(22), at(24), 1);
        promise.check(&trace).unwrap();
        assert_eq!(promise.finding(&trace).exact_hits, None);
    }
}

#[test]
fn limit_of_zero_admits_nothing() {
    let at = Timestamp::from_micros;
    for text in ["fixed_window 0/s", "token_bucket 0/s", "sliding_window 0/s"] {
        let promise: Promise = text.parse().unwrap();
        let mut trace = Trace::default();
        promise.check(&trace).unwrap();
        trace.refuse(at(10), at(20), 1);
        assert_eq!(promise.finding(&trace).needless, Some(0));
        trace.admit(at(10), at(20), 1);
        assert_eq!(promise.check(&trace).unwrap_err().worst.hits, 1, "{text}");
    }
}
