//! Denials that are remembered: they spare Redis, say what Redis would say, can be switched off, and a refund on the same
//! tollgate ends them.

use serde_json::Value;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes, metadata, refund, with_hits};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 1}}
";

/// How many of twenty denials were remembered ones.
async fn remembered(tollgate: &Tollgate, value: &str) -> Option<f64> {
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("k", value)]]);
    let found = codes(&mut client, &asked, 21).await;
    assert_eq!((found[0], &found[1..]), (Code::Ok, &[Code::OverLimit; 20][..]));
    tollgate.metric("tollgate_remembered_denials_total")
}

#[tokio::test]
async fn denials_are_remembered_in_front_of_redis_unless_switched_off() {
    let Some(redis) = RedisServer::start() else { return };
    let shared = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s");
    let tollgate = shared().start();
    let spared = remembered(&tollgate, "a").await.unwrap();
    // The first is Redis's own, and a slow machine may let a second pass.
    assert!((1.0..=19.0).contains(&spared), "{spared}");

    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("k", "a")]]);
    assert_eq!(ask(&mut client, refund(asked.clone(), 1)).await.overall_code(), Code::Ok);
    assert_eq!(codes(&mut client, &asked, 2).await, [Code::Ok, Code::OverLimit], "given back");

    let without = shared().set("deny_cache.max_keys=0").start();
    assert_eq!(remembered(&without, "b").await, Some(0.0));
    let in_memory = Options::serving(POLICY).start();
    assert_eq!(remembered(&in_memory, "c").await, Some(0.0));
}

/// Beside a limit that is full there is one that nothing passes, or not at this cost.
const FULL: &str = "
domain: d
descriptors:
  - key: k
    rate_limits:
      - {unit: hour, requests_per_unit: 3}
";

const NEVER: &str = "
domain: d
descriptors:
  - key: k
    rate_limits:
      - {unit: hour, requests_per_unit: 3}
      - {unit: day, requests_per_unit: 0}
  - key: cost
    rate_limits:
      - {unit: hour, requests_per_unit: 5}
      - {unit: day, requests_per_unit: 3}
";

/// What a status says of a request that can never pass: the limits that forbid it, and when to come back.
async fn said(client: &mut Client, asked: &pb::RateLimitRequest) -> (Value, u32, i64) {
    let answer = ask(client, asked.clone()).await;
    assert_eq!(answer.overall_code(), Code::OverLimit);
    let described = metadata(&answer)["descriptors"][0].clone();
    assert_eq!(described.get("retry_after_ms"), None, "never: {described}");
    let limit = answer.statuses[0].current_limit.clone().unwrap();
    let reset = answer.statuses[0].duration_until_reset.unwrap();
    (described["limits_over"].clone(), limit.requests_per_unit, reset.seconds)
}

#[tokio::test]
async fn remembered_denial_says_never_where_redis_does() {
    let Some(redis) = RedisServer::start() else { return };
    let shared = |policy| Options::serving(policy).redis(redis.url()).set("store.deadline=5s");
    let full = shared(FULL).start();
    let blocked = request("d", &[&[("k", "v")]]);
    let filled = codes(&mut full.client().await, &blocked, 4).await;
    assert_eq!(filled, [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit]);

    let remembers = shared(NEVER).start();
    let asks = shared(NEVER).set("deny_cache.max_keys=0").start();
    let (mut remembers_it, mut asks_redis) = (remembers.client().await, asks.client().await);
    let cost = request("d", &[&[("cost", "v")]]);
    assert_eq!(codes(&mut asks_redis, &with_hits(cost.clone(), 2), 1).await, [Code::Ok]);
    for (asked, limit) in [(blocked, 0), (with_hits(cost, 4), 3)] {
        let day = said(&mut asks_redis, &asked).await;
        assert_eq!((day.0.as_array().unwrap().len(), day.1, day.2), (2, limit, 86_400), "{day:?}");
        for _ in 0..20 {
            assert_eq!(said(&mut remembers_it, &asked).await, day);
        }
    }
    assert!(remembers.metric("tollgate_remembered_denials_total") > Some(0.0));
}
