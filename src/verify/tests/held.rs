//! Estimates that were settled: in windows the cost counts from the admission on, of a bucket the
//! rest comes back when it is settled.

use super::*;

fn promise(text: &str) -> Promise {
    text.parse().unwrap()
}

fn at(millis: u64) -> (Timestamp, Timestamp) {
    (Timestamp::from_micros(millis * 1_000), Timestamp::from_micros(millis * 1_000 + 500))
}

/// So many requests of 8, one each 10 ms, each settled 5 ms later by what it has cost.
fn held(requests: u64, cost: u64) -> Trace {
    let mut trace = Trace::default();
    for number in 0..requests {
        let begun = 1_000 + 10 * number;
        trace.settle(at(begun), 8, at(begun + 5), cost);
    }
    trace
}

#[test]
fn windows_hold_costs_and_not_estimates() {
    for window in ["sliding_window 20/s", "fixed_window 20/s"] {
        assert!(promise(window).check(&held(10, 2)).is_ok(), "20 were used, of 80 that were held");
        let broken = promise(window).check(&held(11, 2)).unwrap_err();
        assert_eq!((broken.worst.hits, broken.worst.is_excess()), (22, true), "{window}");
        assert!(promise(window).check(&held(2, 30)).is_ok(), "beyond the estimate: no promise");
        assert!(promise(window).check(&held(3, 30)).is_err(), "three estimates of 8");
        for (settled, is_kept) in [(6, true), (7, false)] {
            let mut trace = held(settled, 2);
            let (sent, received) = at(1_500);
            trace.admit(sent, received, 8);
            assert_eq!(promise(window).check(&trace).is_ok(), is_kept, "an estimate stays whole");
        }
    }
}

#[test]
fn bucket_gives_back_when_it_is_settled() {
    // 8 at once, and nothing is refilled in this time.
    let bucket = promise("token_bucket 1/day burst 8");
    assert!(bucket.check(&held(8, 0)).is_ok(), "each after the one before was given back");
    assert!(bucket.check(&held(2, 1)).is_err(), "the second had but 7");
    let mut late = Trace::default();
    late.settle(at(1_000), 8, at(5_000), 0);
    late.settle(at(2_000), 8, at(5_000), 0);
    assert!(bucket.check(&late).is_err(), "nothing had come back yet");
}

#[test]
fn lines_with_settlements_are_judged_like_traces() {
    let text = "k,1000,1500,8,1,0,2,6000,6500";
    let mut traces = Traces::new(Duration::ZERO, false);
    for _ in 0..10 {
        traces.push(&Line::parse(text).unwrap());
    }
    let (_, trace) = traces.into_vec().remove(0);
    let finding = promise("sliding_window 20/s").finding(&trace);
    assert!(finding.holds() && (finding.admitted, finding.hits) == (10, 20), "{finding:?}");
    assert_eq!(finding.exact_hits, None);
    assert!(!promise("sliding_window 19/s").finding(&trace).holds());
}
