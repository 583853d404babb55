//! One caller: answers and states are those of the same requests to a single Redis.

use std::time::Duration;

use tokio::time::Instant;
use tollgate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit};
use tollgate::redis::RedisSettings;
use tollgate::store::redis::RedisStore;
use tollgate::store::{Answer, LimitStore};

use crate::asked::{claim, connected, decide, limit, readings, request};
use crate::support::cluster::{RedisCluster, tag_in};
use crate::support::redis::RedisServer;

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm::TokenBucket { burst: 6 },
    Algorithm::SlidingWindow { slots: 10 },
    Algorithm::FixedWindow,
];

fn key_limit(key: usize) -> Limit {
    let settled = Charge::Settled { max_debt: None };
    let charge = if key % 4 == 3 { settled } else { Charge::Admitted };
    let period = limit(6, ALGORITHMS[key % 3]).period();
    Limit::new(6, period, ALGORITHMS[key % 3], charge).unwrap()
}

/// Claims on some of the tags, up to two for each.
fn random_request(tags: &[String], random: &mut fastrand::Rng) -> Group {
    let mut keys: Vec<usize> = (0..tags.len()).collect();
    random.shuffle(&mut keys);
    keys.truncate(random.usize(1..=4));
    let part = |key: usize, random: &mut fastrand::Rng| -> Vec<Claim> {
        let hits = match random.u8(0..12) {
            0 => Hits::Peek(1),
            1 => Hits::Refund(1),
            2 => Hits::Peek(0),
            3..=4 => Hits::Book(random.u64(1..9)),
            _ => Hits::Take(random.u64(0..3)),
        };
        let claims = 0..random.usize(1..=2);
        claims.map(|i| claim(&format!("{}{i}", tags[key]), key_limit(key + i), hits)).collect()
    };
    let mut group = request(keys.into_iter().map(|key| part(key, random)).collect());
    for part in &mut group.parts {
        part.quota = random.u8(0..5) == 0;
        part.shadow = random.u8(0..8) == 0;
    }
    group
}

/// The part of an answer that does not depend on the time.
fn outcome(answer: &Answer) -> Vec<(bool, u64, bool)> {
    let numbers = readings(answer).into_iter();
    let numbers = numbers.map(|r| (r.passed, r.remaining, r.retry_after == Some(Duration::ZERO)));
    numbers.collect()
}

async fn left(store: &RedisStore, key: &str, limit: Limit) -> u64 {
    let group = request(vec![vec![claim(key, limit, Hits::Peek(1))]]);
    readings(&decide(store, &group).await)[0].remaining
}

#[tokio::test]
async fn cluster_answers_as_a_single_redis_does() {
    let (Some(cluster), Some(single)) = (RedisCluster::start(0), RedisServer::start()) else {
        return;
    };
    let store = connected(&cluster.settings()).await;
    let other = connected(&RedisSettings::new(single.url()).unwrap()).await;
    let mut random = fastrand::Rng::with_seed(3);
    let mut split = 0;
    for round in 0..12 {
        let tags: Vec<String> = (0..6).map(|i| tag_in(i % 3, &format!("r{round}k{i}-"))).collect();
        for _ in 0..50 {
            let group = random_request(&tags, &mut random);
            split += usize::from(store.splits(&group));
            let commit = if random.u8(0..10) == 0 { Commit::Never } else { Commit::Together };
            let due = Instant::now() + Duration::from_secs(10);
            let answer = store.decide(&group, commit, due.into()).await;
            let expected = other.decide(&group, commit, due.into()).await;
            assert_eq!(outcome(&answer), outcome(&expected), "{group:?}");
        }
        for (key, tag) in tags.iter().enumerate() {
            for i in 0..2 {
                let (key, limit) = (format!("{tag}{i}"), key_limit(key + i));
                assert_eq!(left(&store, &key, limit).await, left(&other, &key, limit).await);
            }
        }
    }
    assert!(split > 300, "{split} requests over several slots");
    assert!(store.breakers().len() == 3 && store.unreadable_states() == 0);
    forgets_across_nodes(&store, &cluster).await;
}

async fn forgets_across_nodes(store: &RedisStore, cluster: &RedisCluster) {
    let tags: Vec<String> = (0..3).map(|part| tag_in(part, "forget")).collect();
    let limit = limit(5, Algorithm::FixedWindow);
    let all = request(tags.iter().map(|tag| vec![claim(tag, limit, Hits::Take(2))]).collect());
    readings(&decide(store, &all).await);
    assert!(tags.iter().all(|tag| cluster.get(tag).is_some()));
    let mut keys: Vec<Key> = tags.iter().map(|tag| Key::new(tag.as_bytes())).collect();
    keys.push(Key::new(&b"never used"[..]));
    let due = Instant::now() + Duration::from_secs(10);
    assert_eq!(store.forget(&keys, due.into()).await, Ok(3));
    assert!(tags.iter().all(|tag| cluster.get(tag).is_none()));
}
