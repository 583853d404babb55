//! The store on the clock of a running Redis: exact admission, shared calls, and states of other versions.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Group, Hits, Key, LeaseAsk, Limit, Part, Reading, Verdict,
};
use tollgate::redis::RedisSettings;
use tollgate::store::redis::RedisStore;
use tollgate::store::{Answer, Deadline, LimitStore, StoreError};

use super::redis_server::RedisServer;

const HOUR: Duration = Duration::from_hours(1);

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm::TokenBucket { burst: 300 },
    Algorithm::SlidingWindow { slots: 10 },
    Algorithm::FixedWindow,
];

/// 300 requests in ten years: none comes back while a test runs.
pub fn limit(algorithm: Algorithm) -> Limit {
    let decade = Duration::from_hours(10 * 365 * 24);
    Limit::new(300, decade, algorithm, Charge::Admitted).unwrap()
}

pub fn claim(key: &str, limit: Limit, hits: Hits) -> Claim {
    Claim { key: Key::new(key.as_bytes()), limit, hits, lease: None }
}

/// A request with one claim per descriptor.
pub fn request(claims: Vec<Claim>) -> Group {
    let part = |i| Part { quota: false, shadow: false, claims: i..i + 1 };
    Group { parts: (0..claims.len()).map(part).collect(), claims }
}

pub fn one(key: &str) -> Group {
    request(vec![claim(key, limit(Algorithm::FixedWindow), Hits::Take(1))])
}

/// Decides with all the time in the world.
pub async fn decide(store: &RedisStore, group: &Group) -> Answer {
    store.decide(group, Commit::Together, (Instant::now() + Duration::from_secs(10)).into()).await
}

pub fn reading(answer: &Answer, claim: usize) -> Reading {
    answer.readings[claim].unwrap_or_else(|| panic!("{answer:?}"))
}

/// Polls until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < late, "{what}: not within 10 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A store that is connected.
pub async fn connected(settings: &RedisSettings) -> RedisStore {
    let store = RedisStore::connect(settings).unwrap();
    until("connected", || store.is_up()).await;
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_under_128_callers_admit_exactly_the_limit() {
    let Some(server) = RedisServer::start() else { return };
    let settings = RedisSettings::new(server.url()).unwrap();
    let stores = [Arc::new(connected(&settings).await), Arc::new(connected(&settings).await)];
    for algorithm in ALGORITHMS {
        for descriptors in [1, 3] {
            let claims = (0..descriptors).map(|i| {
                claim(&format!("{algorithm:?}:{descriptors}:{i}"), limit(algorithm), Hits::Take(1))
            });
            let group = Arc::new(request(claims.collect()));
            let mut callers = JoinSet::new();
            for caller in 0..128 {
                let (store, group) = (Arc::clone(&stores[caller % 2]), Arc::clone(&group));
                callers.spawn(async move {
                    let mut admitted = 0;
                    for _ in 0..8 {
                        let answer = decide(&store, &group).await;
                        assert_eq!(answer.failure, None);
                        let passed = |claim| reading(&answer, claim).passed;
                        admitted += usize::from(group.verdict(passed) == Verdict::Admit);
                    }
                    admitted
                });
            }
            let admitted: usize = callers.join_all().await.into_iter().sum();
            assert_eq!(admitted, 300, "{algorithm:?} with {descriptors} descriptors");
        }
    }
    let frames = stores[0].frames() + stores[1].frames();
    assert!(frames < 6 * 128 * 8, "{frames} calls of the script: nothing was shared");
}

#[tokio::test]
async fn with_one_limit_to_a_frame_every_request_has_a_call_of_its_own() {
    let Some(server) = RedisServer::start() else { return };
    let settings = RedisSettings {
        frame_limits: 1,
        frames_in_flight: 8,
        ..RedisSettings::new(server.url()).unwrap()
    };
    let store = Arc::new(connected(&settings).await);
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let store = Arc::clone(&store);
        callers.spawn(async move { reading(&decide(&store, &one("hot")).await, 0).passed });
    }
    assert!(callers.join_all().await.into_iter().all(|passed| passed));
    assert_eq!(store.frames(), 64);
    // A request stays whole however many limits it has.
    let whole = request((0..3).map(|i| one(&format!("{i}")).claims.remove(0)).collect());
    assert_eq!(decide(&store, &whole).await.failure, None);
    assert_eq!(store.frames(), 65);
}

#[tokio::test]
async fn denied_request_leaves_bytes_and_expiry_as_they_were() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let mut connection = server.connection();
    for algorithm in ALGORITHMS {
        let take = |key: &str, hits| claim(key, limit(algorithm), Hits::Take(hits));
        let key = format!("{algorithm:?}");
        decide(&store, &request(vec![take(&key, 7)])).await;
        let raw: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
        let expiry = pexpire_time(&mut connection, key.as_bytes());
        let writes = changes(&mut connection);

        let answer = decide(&store, &request(vec![take(&key, 5), take(&key, 300)])).await;
        assert_eq!(reading(&answer, 0).remaining, 288);
        assert!(reading(&answer, 0).passed && !reading(&answer, 1).passed);
        assert_eq!(reading(&answer, 1).remaining, 288);
        let now: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
        assert_eq!(
            (now, pexpire_time(&mut connection, key.as_bytes())),
            (raw, expiry),
            "{algorithm:?}"
        );
        assert_eq!(changes(&mut connection), writes, "{algorithm:?}: written as it was");
    }
}

#[tokio::test]
async fn key_in_use_keeps_its_expiry_for_as_long_as_that_is_late_enough() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let mut connection = server.connection();
    // So many that none is denied.
    let million = |algorithm| {
        Limit::new(1_000_000, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap()
    };
    let take = |algorithm| claim(&format!("{algorithm:?}"), million(algorithm), Hits::Take(1));
    let group = request(ALGORITHMS.map(take).to_vec());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        let asked = Instant::now();
        let answer = decide(&store, &group).await;
        for (i, claim) in group.claims.iter().enumerate() {
            let key = claim.key.as_bytes();
            let left: i64 = redis::cmd("PTTL").arg(key).query(&mut connection).unwrap();
            // At most a window ahead, rounded up to a multiple of 1.048576 s; gone only if this machine stood still.
            assert!(left <= 2_051, "{:?}: {left} ms", claim.key);
            let left = Duration::from_millis(left.max(0).cast_unsigned()) + asked.elapsed();
            let reset = reading(&answer, i).reset_after;
            assert!(left >= reset, "{:?}: {left:?}, full again in {reset:?}", claim.key);
        }
    }
    let expiries = calls(&mut connection, "psetex");
    let in_place = calls(&mut connection, "setrange");
    assert!(expiries * 3 < in_place, "{expiries} expiries, {in_place} writes without");
}

/// How often `command` was called.
fn calls(connection: &mut redis::Connection, command: &str) -> u64 {
    let info: redis::InfoDict = redis::cmd("INFO").arg("commandstats").query(connection).unwrap();
    let statistics: String = info.get(&format!("cmdstat_{command}")).unwrap();
    let calls = statistics.split(',').find_map(|field| field.strip_prefix("calls="));
    calls.unwrap().parse().unwrap()
}

fn pexpire_time(connection: &mut redis::Connection, key: &[u8]) -> i64 {
    redis::cmd("PEXPIRETIME").arg(key).query(connection).unwrap()
}

/// The writes that this Redis counts.
fn changes(connection: &mut redis::Connection) -> u64 {
    let info: redis::InfoDict = redis::cmd("INFO").arg("persistence").query(connection).unwrap();
    info.get("rdb_changes_since_last_save").unwrap()
}

#[tokio::test]
async fn state_expires_on_the_clock_of_redis() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let tenth = Limit::new(1, Duration::from_millis(100), ALGORITHMS[1], Charge::Admitted).unwrap();
    let group = request(vec![claim("short", tenth, Hits::Take(1))]);
    assert!(reading(&decide(&store, &group).await, 0).passed);
    let mut connection = server.connection();
    let left: i64 = redis::cmd("PTTL").arg("short").query(&mut connection).unwrap();
    // Rounded up to a multiple of 1.048576 s.
    assert!((1..=1_151).contains(&left), "{left} ms");
    let refused = reading(&decide(&store, &group).await, 0);
    assert!(!refused.passed && refused.retry_after.unwrap() <= Duration::from_millis(100));
    until("expiry", || redis::cmd("EXISTS").arg("short").query(&mut connection) == Ok(0)).await;
    assert!(reading(&decide(&store, &group).await, 0).passed);
}

#[tokio::test]
async fn state_of_another_version_counts_as_empty_and_is_counted() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let mut connection = server.connection();
    for (key, state) in
        [("later", &b"\x03\x03garbage of a later version"[..]), ("cut", b"\x01\x03")]
    {
        redis::cmd("SET").arg(key).arg(state).exec(&mut connection).unwrap();
    }
    let group = request(["later", "cut", "none"].map(|key| one(key).claims.remove(0)).to_vec());
    let denied = request(vec![
        group.claims[0].clone(),
        claim("later", limit(ALGORITHMS[2]), Hits::Take(301)),
    ]);
    decide(&store, &denied).await;
    let kept: Vec<u8> = redis::cmd("GET").arg("later").query(&mut connection).unwrap();
    assert_eq!((kept[0], store.unreadable_states()), (3, 1));

    let answer = decide(&store, &group).await;
    assert!((0..3).all(|claim| reading(&answer, claim).remaining == 299), "{answer:?}");
    assert_eq!(store.unreadable_states(), 3);
    decide(&store, &group).await;
    assert_eq!(store.unreadable_states(), 3, "both are written anew");
}

/// Bytes of a state: little-endian doubles and 32-bit numbers.
pub fn state(version: u8, algorithm: u8, doubles: &[f64], numbers: &[u32]) -> Vec<u8> {
    let mut bytes = vec![version, algorithm];
    bytes.extend(doubles.iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

#[tokio::test]
async fn senseless_numbers_in_a_state_count_as_empty_disturb_nobody_and_heal() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let mut connection = server.connection();
    let now = now_of(&mut connection) as f64;
    let mut bad = Vec::new();
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1.0, 2f64.powi(60)] {
        bad.push((0, state(2, 1, &[number], &[0, 300, 300])));
        bad.push((
            0,
            [state(2, 1, &[now], &[0, 300, 300]), state(0, 0, &[number; 4], &[0, 0])[2..].to_vec()]
                .concat(),
        ));
        bad.push((1, state(1, 2, &[number, 1.0, 1.0], &[])));
        bad.push((1, state(1, 2, &[now, number, 1.0], &[])));
        bad.push((1, state(1, 2, &[now, 1.0, number], &[])));
        bad.push((2, state(1, 3, &[number, 1.0], &[])));
        bad.push((2, state(1, 3, &[now, number], &[])));
    }
    // Older runs that no window can hold, seen when they are counted.
    bad.push((1, state(1, 2, &[now, 1.0, 2.0, 1.0, f64::NAN], &[])));
    bad.push((1, state(1, 2, &[now, 1.0, 300.0, now + 1e9, 299.0], &[])));
    for (count, (algorithm, raw)) in bad.into_iter().enumerate() {
        let (broken, neighbour) = (format!("broken:{count}"), format!("neighbour:{count}"));
        redis::cmd("SET").arg(&broken).arg(&raw).exec(&mut connection).unwrap();
        let take = |key: &str| claim(key, limit(ALGORITHMS[algorithm]), Hits::Take(1));
        let group = request(vec![take(&broken), take(&neighbour)]);
        let before = store.unreadable_states();
        for left in [299, 298] {
            let answer = decide(&store, &group).await;
            assert_eq!(answer.failure, None, "{}", raw.escape_ascii());
            let remaining = [0, 1].map(|claim| reading(&answer, claim).remaining);
            assert_eq!(remaining, [left; 2], "{}", raw.escape_ascii());
        }
        assert_eq!(store.unreadable_states(), before + 1, "{}", raw.escape_ascii());
    }
}

#[tokio::test]
async fn buckets_of_the_format_before_are_read_and_written_in_this_one() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let mut connection = server.connection();
    // 100 of 300 an hour are used: the bucket is full in 20 minutes.
    let bucket = Algorithm::TokenBucket { burst: 300 };
    let of = |requests| Limit::new(requests, HOUR, bucket, Charge::Admitted).unwrap();
    let full_at = now_of(&mut connection) as f64 + 1_200e6;
    let plain = state(1, 1, &[full_at], &[0, 300]);
    // Ten tokens that a replica holds for another second, early; none late.
    let (until, tokens) = (full_at - 1_199e6, 120e6);
    let slots = [state(0, 0, &[until, tokens], &[0]), state(0, 0, &[0.0, 0.0], &[0])];
    let leased = [&plain[..], &slots[0][2..], &slots[1][2..]].concat();
    for (key, raw) in [("plain", &plain), ("leased", &leased)] {
        redis::cmd("SET").arg(key).arg(raw).exec(&mut connection).unwrap();
        let ask = |limit, hits| request(vec![claim(key, limit, hits)]);
        let get = |connection: &mut redis::Connection| -> Vec<u8> {
            redis::cmd("GET").arg(key).query(connection).unwrap()
        };
        let smaller = Limit::new(1, HOUR, Algorithm::TokenBucket { burst: 1 }, Charge::Admitted);
        let denied = decide(&store, &ask(smaller.unwrap(), Hits::Take(1))).await;
        assert!(!reading(&denied, 0).passed);
        assert_eq!(get(&mut connection), *raw, "a denial writes nothing");
        let answer = decide(&store, &ask(of(300), Hits::Take(1))).await;
        assert_eq!(reading(&answer, 0).remaining, 199, "{key}: {answer:?}");
        let written = get(&mut connection);
        assert_eq!((written[0], written.len()), (2, raw.len() + 4), "{key}");
    }
    assert_eq!(store.unreadable_states(), 0);
}

/// The clock of Redis in microseconds since 1970.
fn now_of(connection: &mut redis::Connection) -> u64 {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    seconds * 1_000_000 + micros
}

#[tokio::test]
async fn windows_lease_nothing_and_are_decided_as_without() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let lease = LeaseAsk { tokens: 5, most: 10, ttl: Duration::from_millis(1), finished: None };
    let asking = |algorithm| Claim {
        lease: Some(Box::new(lease)),
        ..claim(&format!("{algorithm:?}"), limit(algorithm), Hits::Take(1))
    };
    let answer = decide(&store, &request(ALGORITHMS.map(asking).to_vec())).await;
    let told = |i| (reading(&answer, i).remaining, reading(&answer, i).leased_until.is_some());
    assert_eq!([0, 1, 2].map(told), [(294, true), (299, false), (299, false)], "{answer:?}");
}

#[tokio::test]
async fn one_request_may_have_more_limits_than_a_frame() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let claims = (0..2_500).map(|i| one(&format!("{i}")).claims.remove(0)).collect();
    let answer = decide(&store, &request(claims)).await;
    assert_eq!(answer.failure, None);
    assert!((0..2_500).all(|claim| reading(&answer, claim).remaining == 299));
    let too_many = request((0..70_000).map(|_| one("x").claims.remove(0)).collect());
    assert!(matches!(decide(&store, &too_many).await.failure, Some(StoreError::Rejected(_))));
}

#[tokio::test]
async fn blocked_limits_need_no_redis() {
    let blocked = Limit::new(0, Duration::from_secs(1), ALGORITHMS[2], Charge::Admitted).unwrap();
    let nowhere = RedisSettings::new("redis://127.0.0.1:1").unwrap();
    let store = RedisStore::connect(&nowhere).unwrap();
    let answer = decide(&store, &request(vec![claim("k", blocked, Hits::Take(1))])).await;
    assert!(answer.failure.is_none() && !reading(&answer, 0).passed);

    let mixed = request(vec![claim("k", blocked, Hits::Take(1)), one("other").claims.remove(0)]);
    let answer = decide(&store, &mixed).await;
    assert!(matches!(answer.failure, Some(StoreError::Unavailable(_))));
    assert_eq!(*answer.readings, [None, None]);

    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let answer = decide(&store, &mixed).await;
    assert!(!reading(&answer, 0).passed && reading(&answer, 1).passed);
    let keys: u64 = redis::cmd("DBSIZE").query(&mut server.connection()).unwrap();
    assert_eq!(keys, 0, "a blocked limit denies the whole request");
}

#[tokio::test]
async fn forgotten_counters_are_empty_and_others_stay() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    for key in ["a", "b"] {
        assert!(reading(&decide(&store, &one(key)).await, 0).passed);
    }
    let keys = ["a", "never"].map(|key| Key::new(key.as_bytes()));
    let deadline = Deadline::from(Instant::now() + Duration::from_secs(10));
    assert_eq!(store.forget(&keys, deadline).await, Ok(1));
    assert_eq!(store.forget(&[], deadline).await, Ok(0));
    assert_eq!(reading(&decide(&store, &one("a")).await, 0).remaining, 299);
    assert_eq!(reading(&decide(&store, &one("b")).await, 0).remaining, 298);
    drop(server);
    until("down", || !store.is_up()).await;
    assert!(matches!(store.forget(&keys, deadline).await, Err(StoreError::Unavailable(_))));
}
