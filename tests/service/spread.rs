//! Denied callers of one counter are told one slot after the other, over both stores, by each way
//! to ask; and the same time where that is switched off.

use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes, metadata, with_hits};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;

/// A hit is worth ten seconds. Nothing is admitted again while a test runs.
const POLICY: &str = "
domain: d
descriptors:
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 360, burst: 1}}
  - {key: window, rate_limit: {algorithm: sliding_window, unit: day, requests_per_unit: 172800}}
  - {key: watched, shadow_mode: true, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 360, burst: 1}}
";

/// The spare time of a busy machine, in seconds.
const SLACK: f64 = 4.0;

fn options() -> Options {
    Options::serving(POLICY).set("store.deadline=5s")
}

fn one(key: &str, value: &str) -> pb::RateLimitRequest {
    request("d", &[&[(key, value)]])
}

/// The wait that a failing request is told, in seconds. Its two forms agree.
async fn told(client: &mut Client, asked: &pb::RateLimitRequest) -> f64 {
    let answer = ask(client, asked.clone()).await;
    let seconds = metadata(&answer)["descriptors"][0]["retry_after_ms"].as_f64().unwrap() / 1e3;
    let reset = answer.statuses[0].duration_until_reset.as_ref().unwrap();
    assert_eq!((reset.seconds, reset.nanos), (seconds.ceil() as i64, 0));
    seconds
}

/// Uses `value` up, and returns what the next five callers are told beyond the first of them.
async fn beyond_the_first(client: &mut Client, key: &str, value: &str) -> [f64; 5] {
    assert_eq!(codes(client, &one(key, value), 1).await, [Code::Ok]);
    let mut found = [0.0; 5];
    let first = told(client, &one(key, value)).await;
    assert!((5.0..=10.0).contains(&first), "the first is told when its hits fit: {first}");
    for beyond in &mut found {
        *beyond = told(client, &one(key, value)).await - first;
    }
    found
}

#[track_caller]
fn assert_near(found: [f64; 5], wanted: [f64; 5]) {
    let near = |(found, wanted): (&f64, f64)| (wanted - SLACK..=wanted + 0.1).contains(found);
    assert!(found.iter().zip(wanted).all(near), "{found:?} instead of {wanted:?}");
}

async fn assert_spread(tollgate: &Tollgate) {
    let mut client = tollgate.client().await;
    let found = beyond_the_first(&mut client, "bucket", "a").await;
    assert_near(found, [10.0, 20.0, 30.0, 40.0, 50.0]);
    // Other counters have slots of their own, and a shadowed limit sends nobody away.
    let found = beyond_the_first(&mut client, "bucket", "b").await;
    assert_near(found, [10.0, 20.0, 30.0, 40.0, 50.0]);
    assert_near(beyond_the_first(&mut client, "watched", "a").await, [0.0; 5]);
    // Never more than a minute beyond the time of the hits, by HTTP too.
    let body = r#"{"domain":"d","descriptors":[{"entries":[{"key":"bucket","value":"a"}]}]}"#;
    for wanted in [70.0, 70.0] {
        let answer = http::post(tollgate.at.http, "/json", body);
        let (_, header) = answer.head.split_once("retry-after: ").expect(&answer.head);
        let header: f64 = header.lines().next().unwrap().parse().unwrap();
        assert!((wanted - SLACK..=wanted + 1.0).contains(&header), "{header}");
    }
    // A window's hits fit all at once, one window later.
    let full = with_hits(one("window", "a"), 172_800);
    assert_eq!(codes(&mut client, &full, 1).await, [Code::Ok]);
    let (first, second) = (told(&mut client, &full).await, told(&mut client, &full).await);
    assert!((second - first - 60.0).abs() < SLACK, "{first} and {second}");
}

#[tokio::test]
async fn denied_callers_are_told_one_slot_after_the_other_by_both_stores() {
    assert_spread(&options().start()).await;
    let Some(redis) = RedisServer::start() else { return };
    // Once with denials that the deny cache repeats, once with Redis's own.
    let tollgate = options().redis(redis.url()).start();
    assert_spread(&tollgate).await;
    assert!(tollgate.metric("tollgate_remembered_denials_total") > Some(0.0));
    drop(tollgate);
    let Some(redis) = RedisServer::start() else { return };
    assert_spread(&options().redis(redis.url()).set("deny_cache.max_keys=0").start()).await;
}

#[tokio::test]
async fn slots_of_a_replica_are_longer_by_the_number_of_replicas() {
    let Some(redis) = RedisServer::start() else { return };
    let both = [(); 2].map(|()| options().redis(redis.url()).start());
    for tollgate in &both {
        let seen = async || tollgate.metric("tollgate_replicas_seen").filter(|seen| *seen > 1.0);
        until("both are seen", seen).await;
    }
    let found = beyond_the_first(&mut both[0].client().await, "bucket", "a").await;
    assert_near(found, [20.0, 40.0, 60.0, 60.0, 60.0]);
}

#[tokio::test]
async fn everyone_is_told_the_same_time_where_that_is_asked_for() {
    let off = options().set("limits.retry_spread=off").start();
    assert_near(beyond_the_first(&mut off.client().await, "bucket", "a").await, [0.0; 5]);
    // As envoyproxy/ratelimit says it.
    let metadata = "response.dynamic_metadata=true";
    let compat = options().set("compat=ratelimit").set(metadata).start();
    assert_near(beyond_the_first(&mut compat.client().await, "bucket", "a").await, [0.0; 5]);
}
