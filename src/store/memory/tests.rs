//! Properties of the memory store: bounded, and no eviction of counters in use.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::share::seed;
use crate::domain::{
    Algorithm, Change, Charge, Hits, Key, Limit, ManualClock, Part, Timestamp, Told,
};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn store(max_keys: usize) -> (MemoryStore<Arc<ManualClock>>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START));
    (MemoryStore::new(max_keys, Arc::clone(&clock)), clock)
}

fn per_minute(requests: u32) -> Limit {
    let algorithm = Algorithm::SlidingWindow { slots: 10 };
    Limit::new(requests, Duration::from_mins(1), algorithm, Charge::Admitted).unwrap()
}

fn group(keys: &[&str], limit: Limit, hits: Hits) -> Group {
    let claim = |key: &&str| Claim { key: Key::new(key.as_bytes()), limit, hits, lease: None };
    let part = |i: usize| Part { quota: false, shadow: false, claims: i..i + 1 };
    Group { parts: (0..keys.len()).map(part).collect(), claims: keys.iter().map(claim).collect() }
}

fn ask(
    store: &MemoryStore<Arc<ManualClock>>,
    keys: &[&str],
    limit: Limit,
    hits: Hits,
) -> Vec<Reading> {
    let group = group(keys, limit, hits);
    let answer = match group.claims.as_slice() {
        [claim] => store.decide_one(claim, Commit::Together),
        _ => store.decide_now(&group, Commit::Together),
    };
    answer.readings.into_iter().map(Option::unwrap).collect()
}

#[test]
fn counters_that_are_empty_again_make_room() {
    let (store, clock) = store(10);
    for round in 0..20 {
        for key in 0..10 {
            let key = format!("{round}:{key}");
            assert!(ask(&store, &[&key], per_minute(1), Hits::Take(1))[0].passed);
        }
        clock.advance(Duration::from_secs(61));
    }
    assert!(store.len() <= 10, "{}", store.len());
}

#[test]
fn flood_of_keys_is_bounded_and_resets_no_counter() {
    let (store, _) = store(100);
    assert!(ask(&store, &["victim"], per_minute(1), Hits::Take(1))[0].passed);
    for i in 0..20_000 {
        ask(&store, &[&format!("flood {i}")], per_minute(1), Hits::Take(1));
    }
    assert!(!ask(&store, &["victim"], per_minute(1), Hits::Take(1))[0].passed);
    assert!(store.len() <= 100 + 4_096 + 64, "{}", store.len());
}

#[test]
fn newcomers_without_room_share_at_the_limits_own_numbers() {
    let (store, _) = store(1);
    ask(&store, &["first"], per_minute(5), Hits::Take(1));
    let admitted: usize = (0..200_000)
        .filter(|i| ask(&store, &[&format!("new {i}")], per_minute(5), Hits::Take(1))[0].passed)
        .count();
    assert_eq!(admitted, 5 * 4_096, "each overflow counter admits the limit and no more");
}

#[test]
fn shared_counters_outlive_a_change_of_the_limit_and_are_apart_by_rule() {
    let (store, _) = store(1);
    ask(&store, &["first"], per_minute(5), Hits::Take(1));
    let of_rule = |rule: &str| format!("p:1:{{d|{rule}=v}}:sliding_window:60s:10");
    let (one, other) = (of_rule("one"), of_rule("other"));
    assert!(ask(&store, &[&one], per_minute(5), Hits::Take(5))[0].passed);
    for requests in [6, 1, 5] {
        let left = ask(&store, &[&one], per_minute(requests), Hits::Peek(1))[0].remaining;
        assert_eq!(left, u64::from(requests.saturating_sub(5)), "of {requests}");
    }
    assert_eq!(ask(&store, &[&other], per_minute(5), Hits::Peek(1))[0].remaining, 5);
}

#[test]
fn newcomer_inherits_what_the_shared_counter_holds() {
    let (store, clock) = store(1);
    ask(&store, &["first"], per_minute(5), Hits::Take(1));
    clock.advance(Duration::from_secs(30));
    assert_eq!(ask(&store, &["new"], per_minute(5), Hits::Take(4))[0].remaining, 1);
    clock.advance(Duration::from_secs(31));
    let own = ask(&store, &["new"], per_minute(5), Hits::Take(1));
    assert_eq!((own[0].passed, own[0].remaining), (true, 0), "the four from before still count");
}

#[test]
fn one_key_twice_in_a_group_is_one_counter() {
    let (store, _) = store(10);
    let readings = ask(&store, &["a", "b", "a"], per_minute(2), Hits::Take(1));
    let left: Vec<u64> = readings.iter().map(|reading| reading.remaining).collect();
    assert_eq!(left, [1, 1, 0]);
}

#[test]
fn denied_group_leaves_every_counter_as_it_was() {
    let (store, _) = store(10);
    ask(&store, &["a"], per_minute(2), Hits::Take(2));
    assert!(!ask(&store, &["b", "a"], per_minute(2), Hits::Take(1))[1].passed);
    assert_eq!(ask(&store, &["b"], per_minute(2), Hits::Peek(1))[0].remaining, 2);
    assert_eq!(store.len(), 1, "nothing was stored for b");
}

#[test]
fn overflowing_with_too_many_different_limits_is_no_reading_rather_than_a_free_pass() {
    let (store, _) = store(1);
    ask(&store, &["first"], per_minute(1), Hits::Take(1));
    let mut unknown = 0;
    for period in 1..400_000 {
        let (period, algorithm) = (Duration::from_secs(period), Algorithm::FixedWindow);
        let limit = Limit::new(1, period, algorithm, Charge::Admitted).unwrap();
        let group = group(&["new"], limit, Hits::Take(1));
        let answer = store.decide_one(&group.claims[0], Commit::Together);
        unknown += usize::from(*answer.readings == [None]);
    }
    assert!(unknown > 0);
    assert!(store.len() <= 1 + 64 * 4_096);
}

#[test]
fn counters_that_are_used_are_not_set() {
    let (store, clock) = store(10);
    let (key, limit) = (Key::new(&b"a"[..]), per_minute(5));
    let until = START.plus_micros(60_000_000);
    let first = seed(&limit, until, START);
    assert_eq!(store.begin(&key, &limit, || first.clone()), first);
    assert!(!ask(&store, &["a"], limit, Hits::Take(1))[0].passed);
    assert_eq!(store.begin(&key, &limit, || Counter::Empty), first);
    clock.advance(Duration::from_mins(1));
    assert_eq!(store.begin(&key, &limit, || Counter::Empty), Counter::Empty);
    assert!(ask(&store, &["a"], limit, Hits::Take(1))[0].passed);
}

#[test]
fn amendment_without_room_changes_nothing() {
    let (store, _) = store(1);
    ask(&store, &["first"], per_minute(5), Hits::Take(1));
    let tell = |period| Amendment {
        key: Key::new(&b"new"[..]),
        limit: Limit::new(5, Duration::from_secs(period), Algorithm::FixedWindow, Charge::Admitted)
            .unwrap(),
        change: Change::Tell(Told::Fixed {
            hits: 3,
            ends_at: START.floor(period * 1_000_000).plus_micros(period * 1_000_000),
        }),
    };
    let amended: Vec<u64> = (1..400_000).flat_map(|period| store.amend(&[tell(period)])).collect();
    assert!(amended.contains(&3) && amended.contains(&0));
    let first = Amendment { key: Key::new(&b"first"[..]), ..tell(60) };
    assert_eq!(store.amend(&[first.clone(), first]), [3, 2]);
}
