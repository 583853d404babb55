//! Denials that are remembered: they spare Redis, can be switched off, and a refund on the same tollgate ends them.

use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{ask, codes, refund};
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
