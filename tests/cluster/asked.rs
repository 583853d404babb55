//! Short ways to ask a store.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit, Part, Reading, Timestamp, Verdict,
};
use tollgate::redis::RedisSettings;
use tollgate::store::redis::{RedisStore, StoreOptions};
use tollgate::store::{Answer, LimitStore};

use crate::support::wait;

/// The deadline of a call that is to be decided, whatever the machine does.
const PATIENCE: Duration = Duration::from_secs(20);

/// A limit of so many requests in ten years: none comes back while a test runs.
pub fn limit(requests: u32, algorithm: Algorithm) -> Limit {
    let decade = Duration::from_hours(10 * 365 * 24);
    Limit::new(requests, decade, algorithm, Charge::Admitted).unwrap()
}

/// The time, also that of the nodes: they are on this machine.
pub fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap())
}

pub fn claim(key: &str, limit: Limit, hits: Hits) -> Claim {
    Claim { key: Key::new(key.as_bytes()), limit, hits, lease: None }
}

/// A request of one descriptor per list of claims.
pub fn request(parts: Vec<Vec<Claim>>) -> Group {
    let mut group = Group::default();
    for claims in parts {
        let start = group.claims.len();
        group.claims.extend(claims);
        let claims = start..group.claims.len();
        group.parts.push(Part { quota: false, shadow: false, claims });
    }
    group
}

/// One hit of a fixed window for each of these keys.
pub fn hit(keys: &[&str], requests: u32) -> Group {
    let limit = limit(requests, Algorithm::FixedWindow);
    request(keys.iter().map(|key| vec![claim(key, limit, Hits::Take(1))]).collect())
}

/// Decides with all the time in the world.
pub async fn decide(store: &RedisStore, group: &Group) -> Answer {
    decide_within(store, group, PATIENCE).await
}

pub async fn decide_within(store: &RedisStore, group: &Group, time: Duration) -> Answer {
    store.decide(group, Commit::Together, (Instant::now() + time).into()).await
}

/// The readings of an answer that has all of them.
pub fn readings(answer: &Answer) -> Vec<Reading> {
    assert_eq!(answer.failure, None);
    answer.readings.iter().map(|reading| reading.unwrap()).collect()
}

pub fn is_admitted(group: &Group, answer: &Answer) -> bool {
    let readings = readings(answer);
    group.verdict(|i| readings[i].passed) == Verdict::Admit
}

/// A store that has a map and for which no frame is ever overdue. Its first calls wait for the
/// connections that they need.
pub async fn connected(settings: &RedisSettings) -> RedisStore {
    let options = StoreOptions { allowance: PATIENCE.into(), ..StoreOptions::default() };
    let store = RedisStore::connect_with(settings, settings.connector().unwrap(), options);
    wait::until("connected", async || store.is_up().then_some(())).await;
    store
}
