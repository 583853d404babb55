//! The sums of shares over all replicas, and the states of shares.

use std::time::Duration;

use super::*;
use crate::domain::Hits;
use crate::domain::limit::LimitError;

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn limit(requests: u32, algorithm: Algorithm, charge: Charge) -> Limit {
    Limit::new(requests, Duration::from_secs(1), algorithm, charge).unwrap()
}

fn bucket(requests: u32, burst: u32) -> Limit {
    limit(requests, Algorithm::TokenBucket { burst }, Charge::Admitted)
}

/// The shares of ranks 0 to N-1 at a key of this slot.
fn shares(limit: &Limit, replicas: u32, slot: u16) -> Vec<Limit> {
    let share = |rank| limit.share(replicas, turn(rank, slot, replicas)).unwrap();
    (0..replicas).map(share).collect()
}

#[test]
fn capacities_add_up_to_that_of_the_limit_or_a_hit_each() {
    for capacity in 1..=200 {
        let window = limit(capacity, Algorithm::FixedWindow, Charge::Admitted);
        let burst = bucket(7, capacity);
        for replicas in 1..=64 {
            // Every turn, by every remainder of a slot.
            for slot in 0..replicas as u16 {
                let sum = |limit| -> u64 {
                    shares(limit, replicas, slot).iter().map(Limit::capacity).sum()
                };
                let expected = u64::from(capacity.max(replicas));
                assert_eq!((sum(&window), sum(&burst)), (expected, expected), "{replicas}, {slot}");
            }
        }
    }
}

#[test]
fn hits_left_over_go_to_other_ranks_at_other_keys() {
    let window = limit(10, Algorithm::SlidingWindow { slots: 10 }, Charge::Admitted);
    let of_rank_0 = |slot| window.share(4, turn(0, slot, 4)).unwrap().capacity();
    assert_eq!([0, 1, 2, 3, 4].map(of_rank_0), [3, 3, 2, 2, 3]);
    assert_eq!(turn(u32::MAX, u16::MAX, 7), (u32::MAX % 7 + u32::from(u16::MAX) % 7) % 7);
}

#[test]
fn rates_of_buckets_add_up_exactly() {
    for (requests, burst) in [(1, 1), (7, 3), (700_000, 10), (u32::MAX, u32::MAX)] {
        let whole = bucket(requests, burst);
        for replicas in [1, 2, 3, 7, 64] {
            for share in shares(&whole, replicas, 5) {
                // n per N periods each: N of them are n per period.
                assert_eq!(share.requests(), requests);
                assert_eq!(share.period_micros(), whole.period_micros() * u64::from(replicas));
            }
        }
    }
}

#[test]
fn windows_keep_their_period_and_their_slots() {
    for algorithm in [Algorithm::SlidingWindow { slots: 5 }, Algorithm::FixedWindow] {
        let share = limit(100, algorithm, Charge::Admitted).share(8, 3).unwrap();
        assert_eq!((share.requests(), share.period()), (13, Duration::from_secs(1)));
        assert_eq!(share.algorithm(), algorithm);
    }
}

#[test]
fn nothing_stays_nothing_and_one_replica_has_everything() {
    let blocked = limit(0, Algorithm::FixedWindow, Charge::Admitted);
    assert_eq!(blocked.share(4, 1), Some(blocked));
    let always = Charge::Always { max_debt: Some(9) };
    for whole in [bucket(7, 3), limit(7, Algorithm::TokenBucket { burst: 3 }, always)] {
        assert_eq!(whole.share(1, 0), Some(whole));
        assert_eq!(whole.share(0, 9), Some(whole), "no count is a count of one");
    }
}

#[test]
fn debts_are_divided() {
    for (debt, replicas, of_each) in [(9, 2, 4), (3, 4, 1), (0, 4, 0), (u64::MAX, 1, u64::MAX)] {
        let charge = Charge::Always { max_debt: Some(debt) };
        let whole = limit(7, Algorithm::TokenBucket { burst: 8 }, charge);
        let share = whole.share(replicas, 0).unwrap();
        assert_eq!(share.charge(), Charge::Always { max_debt: Some(of_each) });
    }
    let charge = Charge::Always { max_debt: None };
    let whole = limit(7, Algorithm::TokenBucket { burst: 8 }, charge);
    assert_eq!(whole.share(4, 0).unwrap().charge(), charge);
}

#[test]
fn periods_beyond_71_years_are_capped_and_fills_beyond_are_refused() {
    let decade = Duration::from_hours(10 * 365 * 24);
    let of = |requests, burst| {
        let algorithm = Algorithm::TokenBucket { burst };
        Limit::new(requests, decade, algorithm, Charge::Admitted).unwrap()
    };
    assert_eq!(of(100, 100).share(64, 0).unwrap().period_micros(), 1 << 51);
    // 7 in 70 years fit; a share of 2 of them would take 7 of 71 for 1.
    assert_eq!(of(1, 7).share(4, 0).map(|share| share.capacity()), None);
    let refused =
        Limit::for_each(4, 1, decade, Algorithm::TokenBucket { burst: 2 }, Charge::Admitted);
    assert_eq!(refused, Err(LimitError::Fill));
}

/// A share that is used up in part, as `replicas` say, and then belongs to another number.
#[test]
fn bucket_carries_over_to_another_number_of_replicas_unchanged() {
    let whole = bucket(100, 96);
    for before in [1_u32, 2, 3, 4, 8, 48] {
        for after in [1_u32, 2, 3, 4, 8, 48] {
            let (old, new) = (whole.share(before, 0).unwrap(), whole.share(after, 0).unwrap());
            for used in 1..=old.capacity() {
                let mut counter = Counter::Empty;
                let filled = counter.step(&old, Hits::Take(used), START);
                assert!(filled.passed);
                let state = counter.clone();
                let peek = counter.step(&new, Hits::Peek(1), START);
                assert_eq!(counter, state, "{before} to {after}: the state changes");
                // The same part of it is used.
                let (left, of) = (old.capacity() - used, new.capacity());
                assert_eq!(peek.remaining, left * of / old.capacity(), "{before} to {after}");
                assert_eq!(peek.reset_after, filled.reset_after);
            }
        }
    }
}

/// The clock clamps a state to the furthest that its writer could have written, whatever N is now.
#[test]
fn share_is_clamped_to_the_clock_as_its_writer_was() {
    let whole = bucket(100, 96);
    let earlier = START.minus_micros(3_600_000_000);
    for before in [1, 4, 48] {
        for after in [1, 4, 48] {
            let (old, new) = (whole.share(before, 0).unwrap(), whole.share(after, 0).unwrap());
            let mut counter = Counter::Empty;
            counter.step(&old, Hits::Take(old.capacity()), START);
            let reading = counter.step(&new, Hits::Peek(1), earlier);
            let full = old.full().micros;
            let reset = reading.reset_after.as_micros() as u64;
            assert!((full..=full + 1).contains(&reset), "{before} to {after}: {reset} us");
        }
    }
}

#[test]
fn seeded_bucket_is_full_when_the_store_is() {
    let share = bucket(100, 100).share(4, 0).unwrap();
    let reset = |until: u64| {
        let mut counter = seed(&share, START.plus_micros(until), START);
        counter.step(&share, Hits::Peek(1), START).reset_after.as_micros()
    };
    assert_eq!([0, 1, 400_000, 1_000_000].map(reset), [0, 1, 400_000, 1_000_000]);
    assert_eq!(reset(9_000_000), 1_000_000, "at most used up");
    assert_eq!(seed(&share, START, START), Counter::Empty);
}

#[test]
fn seeded_windows_are_used_up_until_then() {
    let now = START.plus_micros(300_000);
    for algorithm in [Algorithm::SlidingWindow { slots: 10 }, Algorithm::FixedWindow] {
        let share = limit(100, algorithm, Charge::Admitted).share(4, 0).unwrap();
        let until = START.plus_micros(1_000_000);
        let mut counter = seed(&share, until, now);
        let denied = counter.step(&share, Hits::Take(1), now);
        assert!(!denied.passed, "{algorithm:?}");
        assert_eq!(denied.retry_after, Some(Duration::from_millis(700)), "{algorithm:?}");
        let later = counter.step(&share, Hits::Take(25), until);
        assert!(later.passed, "{algorithm:?}");
        assert_eq!(seed(&share, now, now), Counter::Empty);
    }
    // A round trip beyond the edge is the edge: the new window is not used up.
    let fixed = limit(100, Algorithm::FixedWindow, Charge::Admitted).share(4, 0).unwrap();
    assert_eq!(seed(&fixed, START.plus_micros(2_000), START.plus_micros(1)), Counter::Empty);
    assert_ne!(seed(&fixed, START.plus_micros(998_000), now), Counter::Empty);
    let blocked = limit(0, Algorithm::FixedWindow, Charge::Admitted);
    assert_eq!(seed(&blocked, START.plus_micros(9), START), Counter::Empty);
}
