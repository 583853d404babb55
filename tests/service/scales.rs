//! The dial of a rule: a part of its limits is in force on both replicas within a second, for every
//! algorithm and for what stands in for the rule's limits; hits that are used stay used.

use std::time::{Duration, Instant, UNIX_EPOCH};

use prost_types::Timestamp;
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::edge::admin::pb::{self, ListScalesRequest, SetScaleRequest};
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::Code;
use tonic::{Code as Failure, Status};

use crate::support::grpc::{Client, ask, codes, with_hits};
use crate::support::operator::{Operator, daily};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 100}}
  - {key: sliding, rate_limit: {algorithm: sliding_window, unit: day, requests_per_unit: 100}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: day, requests_per_unit: 100}}
  - {key: slots, rate_limit: {algorithm: concurrency, max: 100, ttl: 10m}}
  - {key: one, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: none, rate_limit: {unit: day, requests_per_unit: 0}}
";

const SOON: Duration = Duration::from_secs(1);

fn turn(rule: &str, percent: f64) -> SetScaleRequest {
    let (domain, rule) = ("d".to_owned(), rule.to_owned());
    SetScaleRequest { domain, rule, percent, ..SetScaleRequest::default() }
}

async fn set(operator: &Operator, scale: SetScaleRequest) -> Result<pb::SetScaleResponse, Status> {
    Ok(operator.policies().set_scale(scale).await?.into_inner())
}

async fn list(operator: &Operator) -> Vec<pb::Scale> {
    let all = ListScalesRequest { domain: String::new() };
    operator.policies().list_scales(all).await.unwrap().into_inner().scales
}

fn one(key: &str, value: &str) -> RateLimitRequest {
    request("d", &[&[(key, value)]])
}

/// The limit that is in force.
async fn limit(client: &mut Client, asked: RateLimitRequest) -> u32 {
    let answer = ask(client, with_hits(asked, 0)).await;
    answer.statuses[0].current_limit.as_ref().unwrap().requests_per_unit
}

async fn passes(client: &mut Client, key: &str, times: usize) -> usize {
    let codes = codes(client, &one(key, "v"), times).await;
    codes.iter().filter(|code| **code == Code::Ok).count()
}

async fn assert_turned(here: &Tollgate, there: &Tollgate) {
    let operator = Operator::of(here).await;
    let mut callers = [here.client().await, there.client().await];
    for key in ["k", "sliding", "bucket", "slots"] {
        assert_eq!(passes(&mut callers[0], key, 20).await, 20);
        let begun = Instant::now();
        let answer = set(&operator, turn(key, 50.0)).await.unwrap();
        assert_eq!(answer.percent_in_force.to_string(), "50");
        while limit(&mut callers[1], one(key, "v")).await != 50 {
            assert!(begun.elapsed() < SOON, "{key} is not turned in {SOON:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(passes(&mut callers[1], key, 40).await, 30, "{key}: used stays used");
        set(&operator, turn(key, 0.0)).await.unwrap();
        assert_eq!(limit(&mut callers[0], one(key, "v")).await, 100, "{key}");
        // Hits are not remembered as denied for longer than a second.
        crate::support::wait::until("it passes again", async || {
            (passes(&mut callers[0], key, 1).await == 1).then_some(())
        })
        .await;
        assert_eq!(passes(&mut callers[0], key, 60).await, 49, "{key}: 100 in all");
    }
}

#[tokio::test]
async fn rules_are_turned_on_both_replicas_within_a_second() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s").start();
    let (here, there) = (start(), start());
    assert_turned(&here, &there).await;
}

#[tokio::test]
async fn rules_are_turned_in_memory() {
    let tollgate = Options::serving(POLICY).start();
    assert_turned(&tollgate, &tollgate).await;
}

#[tokio::test]
async fn what_stands_in_for_a_rule_is_turned_with_it_and_nothing_vanishes() {
    let tollgate = Options::serving(POLICY).start();
    let (operator, mut caller) = (Operator::of(&tollgate).await, tollgate.client().await);
    operator.upsert(daily("gold", 1_000)).await.unwrap();
    for rule in ["k", "one", "none"] {
        set(&operator, turn(rule, 12.5)).await.unwrap();
    }
    assert_eq!(limit(&mut caller, one("k", "gold")).await, 125);
    let mut brought = one("k", "v");
    let over = RateLimitOverride { requests_per_unit: 80, unit: 4, unit_multiplier: None };
    brought.descriptors[0].limit = Some(over);
    assert_eq!(limit(&mut caller, brought).await, 10);
    assert_eq!(limit(&mut caller, one("one", "v")).await, 1);
    assert_eq!(codes(&mut caller, &one("none", "v"), 1).await, [Code::OverLimit]);
    let told = operator.explain(one("k", "gold")).await;
    assert_eq!(told.descriptors[0].scale_percent, Some(12.5));
    assert_eq!(told.descriptors[0].counters[0].remaining, Some(124));
    let series = r#"tollgate_scale{domain="d",rule="k"}"#;
    assert_eq!(tollgate.metric(series), Some(0.125));
    set(&operator, turn("k", 0.0)).await.unwrap();
    assert_eq!(tollgate.metric(series), None);
    let line = tollgate.wait_for_log("set_scale");
    assert!(line.contains("d|scale of k") && line.contains(r#"{\"per_mille\":125"#), "{line}");
}

#[tokio::test]
async fn scale_ends_by_itself_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Options::serving(POLICY).data(dir.path().join("data")).start();
    let mut tollgate = start();
    let operator = Operator::of(&tollgate).await;
    let wall = Duration::from_micros(SystemClock::start().now().as_micros());
    let expires_at = Some(Timestamp::from(UNIX_EPOCH + wall + Duration::from_secs(4)));
    let reason = "backend is slow".to_owned();
    set(&operator, SetScaleRequest { expires_at, reason, ..turn("k", 10.0) }).await.unwrap();
    set(&operator, turn("bucket", 20.0)).await.unwrap();
    tollgate.signal("KILL");
    tollgate.wait();
    drop(tollgate);
    let tollgate = start();
    let (operator, mut caller) = (Operator::of(&tollgate).await, tollgate.client().await);
    assert_eq!(limit(&mut caller, one("k", "v")).await, 10);
    let listed = list(&operator).await;
    let shown: Vec<_> = listed.iter().map(|s| (&*s.rule, s.percent, s.in_force())).collect();
    assert_eq!(shown, [("bucket", 20.0, true), ("k", 10.0, true)]);
    assert_eq!(listed[1].reason, "backend is slow");
    crate::support::wait::until("it ends", async || {
        (limit(&mut caller, one("k", "v")).await == 100).then_some(())
    })
    .await;
    assert_eq!(list(&operator).await.len(), 1);
    assert_eq!(limit(&mut caller, one("bucket", "v")).await, 20);
}

#[tokio::test]
async fn what_cannot_be_set_is_refused_field_by_field() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let kept = set(&operator, turn("k", 50.0)).await.unwrap().scale.unwrap();
    let past = Some(Timestamp { seconds: 1, nanos: 0 });
    let long = "r".repeat(257);
    for (bad, text) in [
        (turn("unknown", 50.0), "is no rule of this domain; it has k, sliding, bucket"),
        (turn("k", -1.0), "percent: found -1"),
        (turn("k", 100.5), "expected 0.1 to 100; set above_limits"),
        (turn("k", f64::NAN), "percent: found NaN"),
        (turn("k", 0.01), "percent: is below 0.1"),
        (SetScaleRequest { above_limits: true, ..turn("k", 1_001.0) }, "expected 0.1 to 1000"),
        (SetScaleRequest { expires_at: past, ..turn("k", 1.0) }, "expires_at: must be in the"),
        (SetScaleRequest { reason: long, ..turn("k", 1.0) }, "reason: has more than 256"),
        (SetScaleRequest { etag: "x".to_owned(), ..turn("k", 1.0) }, "etag: is no etag"),
    ] {
        let refused = set(&operator, bad.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Failure::InvalidArgument, "{bad:?}");
        assert!(refused.message().contains(text), "{}", refused.message());
    }
    let stale = SetScaleRequest { etag: "77".to_owned(), ..turn("k", 1.0) };
    assert_eq!(set(&operator, stale).await.unwrap_err().code(), Failure::Aborted);
    let double = SetScaleRequest { above_limits: true, etag: kept.etag, ..turn("k", 200.0) };
    set(&operator, double).await.unwrap();
    let mut caller = tollgate.client().await;
    assert_eq!(limit(&mut caller, one("k", "v")).await, 200);
}
