//! The arithmetic of telling: what the store learns is what it does not know.

use super::*;
use crate::domain::share::seed;
use crate::domain::{Change, Charge, Hits};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const SECOND: u64 = 1_000_000;

/// 100 hits per second.
fn limit(algorithm: Algorithm) -> Limit {
    Limit::new(100, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap()
}

/// One of four replicas that decides by its share.
struct Replica {
    share: Limit,
    counter: Counter,
    untold: Untold,
}

impl Replica {
    fn new(algorithm: Algorithm, used_until: Timestamp) -> Self {
        let limit = limit(algorithm);
        let share = limit.share(4, 0).unwrap();
        let counter = seed(&share, used_until, START);
        let untold = Untold::new(limit, 4, &counter, START);
        Self { share, counter, untold }
    }

    fn take(&mut self, hits: u64, now: Timestamp) {
        assert!(self.counter.step(&self.share, Hits::Take(hits), now).passed);
        self.untold.charge(hits, now);
    }

    fn reset(&self, now: Timestamp) -> Duration {
        self.counter.clone().step(&self.share, Hits::Peek(1), now).reset_after
    }

    fn tell(&mut self, now: Timestamp) -> Option<Told> {
        self.untold.take(self.reset(now), now)
    }
}

const BUCKET: Algorithm = Algorithm::TokenBucket { burst: 100 };
const SLIDING: Algorithm = Algorithm::SlidingWindow { slots: 10 };

#[test]
fn bucket_tells_what_has_not_refilled() {
    let mut replica = Replica::new(BUCKET, START);
    assert_eq!(replica.tell(START), None);
    replica.take(20, START);
    // 20 hits take 0.2 s to refill in the store, and 0.8 s in a share of a quarter.
    let half = START.plus_micros(SECOND * 4 / 10);
    assert_eq!(replica.tell(half), Some(Told::Bucket { micros: 100_000 }));
    assert_eq!(replica.tell(half), None, "told once");
    replica.take(5, half);
    assert_eq!(replica.tell(half), Some(Told::Bucket { micros: 50_000 }));
    assert!(replica.untold.is_told(replica.reset(half), half));
    assert_eq!(replica.tell(START.plus_micros(9 * SECOND)), None);
}

#[test]
fn seed_is_not_told() {
    let mut replica = Replica::new(BUCKET, START.plus_micros(600_000));
    assert_eq!(replica.tell(START), None);
    replica.take(5, START);
    assert_eq!(replica.tell(START), Some(Told::Bucket { micros: 50_000 }));
    for algorithm in [SLIDING, Algorithm::FixedWindow] {
        let mut replica = Replica::new(algorithm, START.plus_micros(600_000));
        assert_eq!(replica.tell(START), None, "{algorithm:?}");
    }
}

#[test]
fn windows_tell_hits_that_are_still_inside() {
    let later = START.plus_micros(300_000);
    let mut replica = Replica::new(SLIDING, START);
    replica.take(3, START);
    replica.take(4, START.plus_micros(100_000));
    assert_eq!(replica.tell(later), Some(Told::Sliding { hits: 7, age: 200_000 }));
    assert_eq!(replica.tell(later), None, "told once");
    replica.take(2, later);
    assert_eq!(replica.tell(later.plus_micros(SECOND)), None, "they have left");

    let mut replica = Replica::new(Algorithm::FixedWindow, START);
    replica.take(3, START);
    replica.take(4, START.plus_micros(100_000));
    let ends_at = START.plus_micros(SECOND);
    assert_eq!(replica.tell(later), Some(Told::Fixed { hits: 7, ends_at }));
    replica.take(5, later);
    replica.take(6, ends_at);
    let ends_at = ends_at.plus_micros(SECOND);
    let told = Told::Fixed { hits: 6, ends_at };
    assert_eq!(replica.tell(ends_at.minus_micros(1)), Some(told), "those of this window");
    assert_eq!(replica.tell(ends_at), None);
}

#[test]
fn late_answers_settle_what_they_charged() {
    for algorithm in [SLIDING, Algorithm::FixedWindow] {
        let mut replica = Replica::new(algorithm, START);
        replica.take(9, START);
        replica.untold.settle(4, replica.reset(START), START);
        let told = replica.tell(START);
        let hits = match told {
            Some(Told::Sliding { hits, .. } | Told::Fixed { hits, .. }) => hits,
            _ => 0,
        };
        assert_eq!(hits, 5, "{algorithm:?}: {told:?}");
        replica.untold.settle(4, replica.reset(START), START);
        assert_eq!(replica.tell(START), None, "nothing at least");
    }
    let mut replica = Replica::new(BUCKET, START);
    replica.take(9, START);
    let later = START.plus_micros(40_000);
    replica.untold.settle(4, replica.reset(later), later);
    // 5 hits are 0.05 s, of which a quarter of 0.04 s has refilled.
    assert_eq!(replica.tell(later), Some(Told::Bucket { micros: 40_000 }));
    replica.untold.settle(4, replica.reset(later), later);
    assert_eq!(replica.tell(later), None);
    replica.take(3, later);
    assert_eq!(replica.tell(later), Some(Told::Bucket { micros: 30_000 }), "no credit is left");
}

#[test]
fn refunds_are_not_told() {
    let mut replica = Replica::new(BUCKET, START);
    replica.take(9, START);
    replica.counter.step(&replica.share, Hits::Refund(4), START);
    replica.untold.refund(4);
    assert_eq!(replica.tell(START), Some(Told::Bucket { micros: 50_000 }));
    let mut replica = Replica::new(SLIDING, START);
    replica.take(9, START);
    replica.untold.refund(4);
    assert_eq!(replica.tell(START), Some(Told::Sliding { hits: 5, age: 0 }));
}

#[test]
fn store_that_is_told_has_charged_what_the_share_admitted() {
    for algorithm in [BUCKET, SLIDING, Algorithm::FixedWindow] {
        let mut replica = Replica::new(algorithm, START);
        replica.take(20, START);
        let told = replica.tell(START).unwrap();
        let mut store = Counter::Empty;
        store.step(&limit(algorithm), Hits::Take(10), START);
        store.amend(&limit(algorithm), &Change::Tell(told), START);
        let left = store.step(&limit(algorithm), Hits::Peek(1), START).remaining;
        assert_eq!(left, 70, "{algorithm:?}");
    }
}

#[test]
fn resumed_for_other_numbers_it_tells_the_more() {
    let mut replica = Replica::new(BUCKET, START);
    replica.take(20, START);
    replica.untold.resume(limit(BUCKET), 8, START);
    assert_eq!(replica.tell(START), Some(Told::Bucket { micros: 200_000 }));
    replica.untold.resume(limit(SLIDING), 8, START);
    assert_eq!(replica.tell(START), None);
    assert_eq!(replica.untold.limit(), &limit(SLIDING));
}
