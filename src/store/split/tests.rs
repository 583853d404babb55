//! Split requests against a store of counters: alone they equal requests that are decided at once,
//! and among others they waste little and exceed nothing.

mod crowd;

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::domain::{Algorithm, Charge, Counter, Hits, Key, Limit};

const SECOND: Duration = Duration::from_secs(1);

/// Counters by key.
#[derive(Clone, Default)]
struct Counters(HashMap<Key, Counter>);

impl Counters {
    /// Decides as a server does.
    fn decide(&mut self, group: &Group, commit: Commit, now: Timestamp) -> Vec<Reading> {
        let mut keys: Vec<&Key> = group.claims.iter().map(|claim| &claim.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut counters: Vec<Counter> =
            keys.iter().map(|key| self.0.get(*key).cloned().unwrap_or_default()).collect();
        let place = |claim: &Claim| keys.binary_search(&&claim.key).unwrap();
        let places: Vec<usize> = group.claims.iter().map(place).collect();
        let readings = group.decide(commit, now, &places, &mut counters);
        self.0.extend(keys.into_iter().cloned().zip(counters));
        readings
    }

    fn amend(&mut self, amendments: &[Amendment], now: Timestamp) {
        for Amendment { key, limit, change } in amendments {
            self.0.entry(key.clone()).or_default().amend(limit, change, now);
        }
    }

    /// The rest of a limit.
    fn left(&self, claim: &Claim, now: Timestamp) -> (u64, Duration) {
        let mut counter = self.0.get(&claim.key).cloned().unwrap_or_default();
        let reading = counter.step(&claim.limit, Hits::Peek(1), now);
        (reading.remaining, reading.reset_after)
    }

    /// Runs a split request with nobody else about.
    fn run(
        &mut self,
        group: &Group,
        suspect: impl Fn(&Claim) -> Option<Instant>,
        shy: bool,
        now: Timestamp,
    ) -> (Verdict, Vec<Reading>) {
        let mut split = Split::new(group.clone()).unwrap();
        let mut errands = split.first(suspect, shy);
        let mut receipts = Vec::new();
        let verdict = loop {
            for errand in &errands {
                let readings = self.decide(&errand.group, errand.commit, now);
                split.note(errand, Some(&readings));
                receipts.extend(Split::receipts(errand, &readings, now));
            }
            match split.next(true) {
                Next::Ask(more) => errands = more,
                Next::Admit => break Verdict::Admit,
                Next::Deny => {
                    self.amend(&receipts, now);
                    break Verdict::Deny;
                }
            }
        };
        (verdict, split.into_readings().into_iter().map(Option::unwrap).collect())
    }
}

fn limit(requests: u32, algorithm: Algorithm, charge: Charge) -> Limit {
    Limit::new(requests, SECOND, algorithm, charge).unwrap()
}

fn claim(key: &str, limit: Limit, hits: Hits) -> Claim {
    Claim { key: Key::new(key.as_bytes()), limit, hits, lease: None }
}

/// A request of parts with these claims.
fn request(parts: Vec<Vec<Claim>>) -> Group {
    let mut group = Group::default();
    for claims in parts {
        let start = group.claims.len();
        group.claims.extend(claims);
        let claims = start..group.claims.len();
        group.parts.push(Part { quota: false, shadow: false, claims });
    }
    group
}

fn random_request(random: &mut fastrand::Rng) -> Group {
    let mut keys: Vec<u32> = (0..6).collect();
    random.shuffle(&mut keys);
    keys.truncate(random.usize(2..=4));
    let mut group = request(keys.into_iter().map(|key| random_part(key, random)).collect());
    for part in &mut group.parts {
        part.quota = random.u8(0..4) == 0;
        part.shadow = random.u8(0..6) == 0;
    }
    group
}

fn random_part(key: u32, random: &mut fastrand::Rng) -> Vec<Claim> {
    let one = |i: usize, random: &mut fastrand::Rng| {
        let algorithm = [
            Algorithm::TokenBucket { burst: 3 },
            Algorithm::SlidingWindow { slots: 4 },
            Algorithm::FixedWindow,
        ][(key as usize + i) % 3];
        let charge = match key {
            4 => Charge::Settled { max_debt: None },
            5 => Charge::Always { max_debt: Some(5) },
            _ => Charge::Admitted,
        };
        let requests = if random.u8(0..30) == 0 { 0 } else { 4 + key };
        let hits = match random.u8(0..10) {
            0 => Hits::Peek(u64::from(key != 4)),
            3..=6 if key == 4 => Hits::Book(random.u64(1..7)),
            1 => Hits::Refund(random.u64(0..3)),
            2 => Hits::Take(30),
            _ => Hits::Take(random.u64(0..4)),
        };
        let blocked = requests == 0;
        let charge = if blocked { Charge::Admitted } else { charge };
        let algorithm = if blocked { Algorithm::FixedWindow } else { algorithm };
        claim(&format!("{{{key}}}{i}"), limit(requests, algorithm, charge), hits)
    };
    (0..random.usize(1..=2)).map(|i| one(i, random)).collect()
}

#[test]
fn alone_a_split_request_equals_one_that_is_decided_at_once() {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut admitted, mut denied, mut rounds) = (0, 0, [0, 0]);
    for _ in 0..300 {
        let (mut split, mut whole) = (Counters::default(), Counters::default());
        let mut now = Timestamp::from_micros(1_700_000_000_000_000);
        for _ in 0..40 {
            now = now.plus_micros(random.u64(0..300_000));
            let group = random_request(&mut random);
            let suspect = random.u8(0..8);
            let suspect =
                |claim: &Claim| (claim.key.as_bytes()[1] - b'0' == suspect).then(Instant::now);
            let shy = random.bool();
            rounds[usize::from(shy)] += 1;
            let (verdict, readings) = split.run(&group, suspect, shy, now);
            let expected = whole.decide(&group, Commit::Together, now);
            assert_eq!(verdict, group.verdict(|i| expected[i].passed));
            assert_eq!(readings, expected, "{group:?}");
            for claim in group.claims.iter().filter(|claim| !claim.limit.is_blocked()) {
                let (left, expected) = (split.left(claim, now), whole.left(claim, now));
                assert_eq!(left.0, expected.0, "{claim:?}");
                let later = left.1.checked_sub(expected.1).map(|later| later.as_micros());
                let most = if verdict == Verdict::Deny { later_by(&claim.limit) } else { 0 };
                assert!(later.is_some_and(|later| later <= most.into()), "{later:?}: {claim:?}");
            }
            whole.0.clone_from(&split.0);
            *if verdict == Verdict::Admit { &mut admitted } else { &mut denied } += 1;
        }
    }
    assert!(admitted > 2_000 && denied > 2_000, "{admitted} and {denied}");
}

/// Hits that are given back to a sliding window may have joined a run, which leaves as if the last
/// of them had stayed.
fn later_by(limit: &Limit) -> u64 {
    let slides = matches!(limit.algorithm(), Algorithm::SlidingWindow { .. });
    if slides { limit.run_width() } else { 0 }
}

#[test]
fn descriptor_in_several_slots_is_refused() {
    let take = |key| claim(key, limit(9, Algorithm::FixedWindow, Charge::Admitted), Hits::Take(1));
    let crossed = request(vec![vec![take("{a}"), take("{b}")]]);
    assert!(matches!(Split::new(crossed), Err(StoreError::Protocol(_))));
    let blocked = limit(0, Algorithm::FixedWindow, Charge::Admitted);
    let sound =
        request(vec![vec![take("{a}1"), take("{a}2"), claim("{b}", blocked, Hits::Peek(1))]]);
    assert!(!is_split(&sound) && Split::new(sound).is_ok());
    assert!(is_split(&request(vec![vec![take("{a}")], vec![take("{b}")]])));
}

/// The outcome of two parts in two slots, whose readings pass, fail, or do not come.
fn outcome(first: Option<bool>, second: Option<bool>, shy: bool, in_time: bool) -> (String, usize) {
    let limit = limit(1, Algorithm::FixedWindow, Charge::Admitted);
    let now = Timestamp::from_micros(1);
    let group = request(["{a}", "{b}"].map(|key| vec![claim(key, limit, Hits::Take(1))]).to_vec());
    let mut split = Split::new(group).unwrap();
    let mut charged = 0;
    let mut errands = split.first(|_| None, shy);
    loop {
        for errand in &errands {
            let answer = if errand.parts == [0] { first } else { second };
            let readings = answer.map(|passes| {
                let mut counter = Counter::Empty;
                counter.step(&limit, Hits::Take(u64::from(!passes)), now);
                vec![counter.step(&limit, Hits::Take(1), now)]
            });
            split.note(errand, readings.as_deref());
            let receipts = readings.map(|readings| Split::receipts(errand, &readings, now));
            charged += receipts.map_or(0, |receipts| receipts.len());
        }
        let next = split.next(in_time);
        let name = match next {
            Next::Ask(more) => {
                errands = more;
                continue;
            }
            Next::Admit => "admit",
            Next::Deny => "deny",
        };
        let missing = split.into_readings().iter().filter(|reading| reading.is_none()).count();
        return (format!("{name}, {missing} open"), charged);
    }
}

#[test]
fn parts_without_an_answer_are_left_open() {
    let of = |first, second, shy, in_time| outcome(first, second, shy, in_time);
    let is = |name: &str, charged| (name.to_owned(), charged);
    assert_eq!(of(Some(true), Some(true), false, true), is("admit, 0 open", 2));
    assert_eq!(of(Some(true), Some(false), false, true), is("deny, 0 open", 1));
    assert_eq!(of(Some(true), None, false, true), is("admit, 1 open", 1));
    assert_eq!(of(Some(false), None, false, true), is("deny, 1 open", 0));
    assert_eq!(of(None, None, false, true), is("admit, 2 open", 0));
    // A part that was looked at is charged in the second round. Without time for one it is open.
    assert_eq!(of(Some(true), Some(true), true, true), is("admit, 0 open", 2));
    assert_eq!(of(Some(true), Some(true), true, false), is("admit, 2 open", 0));
    assert_eq!(of(Some(true), Some(false), true, true), is("deny, 0 open", 0));
    assert_eq!(of(Some(true), None, true, true), is("admit, 1 open", 1));
}
