//! Decisions and hits by rule, limit and outcome; durations; calls of Redis; both text formats.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use tollgate::edge::admin::pb::Unit::Day;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code::{Ok as OK, OverLimit as OVER};
use tollgate::edge::pb::rate_limit_response::rate_limit::Unit;

use crate::decisions::with_override;
use crate::support::grpc::{ask, codes, refund, with_hits};
use crate::support::http;
use crate::support::operator::{Operator, client as limited, limit};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::tools::is_there;

/// Longer than any connection takes to close.
const PATIENCE: Duration = Duration::from_secs(20);

const POLICIES: &str = "
domain: d
descriptors:
  - {key: plain, rate_limit: {unit: day, requests_per_unit: 10}}
  - {key: named, rate_limit: {name: gold, unit: day, requests_per_unit: 10}}
  - {key: multiplied, rate_limit: {unit: minute, unit_multiplier: 5, requests_per_unit: 10}}
  - key: several
    rate_limits:
      - {unit: day, requests_per_unit: 2}
      - {name: wide, unit: hour, requests_per_unit: 1, algorithm: token_bucket, burst: 3}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
";

/// Decisions and hits of the series with these values of rule, limit and outcome.
type Counts = BTreeMap<(String, String, String), (u64, u64)>;

fn label(labels: &str, name: &str) -> String {
    let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn counts(tollgate: &Tollgate) -> Counts {
    let text = http::get(tollgate.at.http, "/metrics").body;
    let mut counts = Counts::new();
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let value = || value.parse().unwrap();
        let key = || {
            let [rule, limit, outcome] = ["rule", "limit", "outcome"].map(|it| label(labels, it));
            (rule, limit, outcome)
        };
        match name {
            "tollgate_decisions_total" => counts.entry(key()).or_default().0 = value(),
            "tollgate_hits_total" => counts.entry(key()).or_default().1 = value(),
            _ => {}
        }
    }
    counts
}

fn expected(rows: &[(&str, &str, &str, u64, u64)]) -> Counts {
    let row = |&(rule, limit, outcome, decisions, hits): &(&str, &str, &str, u64, u64)| {
        ((rule.to_owned(), limit.to_owned(), outcome.to_owned()), (decisions, hits))
    };
    rows.iter().map(row).collect()
}

fn of(key: &str) -> pb::RateLimitRequest {
    request("d", &[&[(key, "v")]])
}

async fn each_outcome_is_counted(tollgate: &Tollgate) {
    let mut client = tollgate.client().await;
    assert!(counts(tollgate).is_empty(), "series begin with their first decision");
    // 7 of 10 used; then exactly 8, which is near; a peek, a refund, one too many.
    for (asked, code) in [
        (with_hits(of("plain"), 7), OK),
        (with_hits(of("plain"), 1), OK),
        (peek("plain"), OK),
        (refund(of("plain"), 2), OK),
        (with_hits(of("plain"), 5), OVER),
    ] {
        assert_eq!(ask(&mut client, asked).await.overall_code(), code);
    }
    codes(&mut client, &of("named"), 1).await;
    codes(&mut client, &of("multiplied"), 1).await;
    codes(&mut client, &of("free"), 2).await;
    assert_eq!(codes(&mut client, &of("shadow"), 2).await, [OK, OK]);
    assert_eq!(codes(&mut client, &of("quota"), 2).await, [OK, OVER]);
    let brought = with_override(of("alone"), 1, Unit::Day as i32, None);
    assert_eq!(codes(&mut client, &brought, 2).await, [OK, OVER]);
    let brought = with_override(of("named"), 4, Unit::Day as i32, None);
    assert_eq!(codes(&mut client, &brought, 1).await, [OK]);
    let rows = expected(&[
        ("plain", "10/DAY", "admitted", 1, 7),
        ("plain", "10/DAY", "near_limit", 1, 1),
        ("plain", "10/DAY", "peek", 1, 0),
        ("plain", "10/DAY", "refund", 1, 2),
        ("plain", "10/DAY", "over_limit", 1, 5),
        ("named", "(override)", "admitted", 1, 1),
        ("named", "gold", "admitted", 1, 1),
        ("multiplied", "10/5MINUTE", "admitted", 1, 1),
        ("free", "unlimited", "admitted", 2, 2),
        ("shadow", "1/DAY", "near_limit", 1, 1),
        ("shadow", "1/DAY", "shadowed", 1, 1),
        ("quota", "1/DAY", "near_limit", 1, 1),
        ("quota", "1/DAY", "over_limit", 1, 1),
        ("(override)", "(override)", "near_limit", 1, 1),
        ("(override)", "(override)", "over_limit", 1, 1),
    ]);
    assert_eq!(counts(tollgate), rows);
}

fn peek(key: &str) -> pb::RateLimitRequest {
    let mut asked = of(key);
    asked.descriptors[0].hits_addend = Some(0);
    asked
}

#[tokio::test]
async fn outcomes_are_those_of_the_decisions_in_memory() {
    each_outcome_is_counted(&Options::serving(POLICIES).start()).await;
}

#[tokio::test]
async fn outcomes_are_those_of_the_decisions_in_redis() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).set("store.deadline=1s").start();
    each_outcome_is_counted(&tollgate).await;
    let value = |series: &str| tollgate.metric(series).unwrap_or_default();
    let calls = value("tollgate_store_round_trip_seconds_count");
    assert!((1.0..=20.0).contains(&calls), "{calls} calls");
    let whole = |series: &str| value(series) as u64;
    assert_eq!(whole("tollgate_store_batch_groups_count"), calls as u64);
    assert_eq!(whole("tollgate_store_batch_groups_sum"), calls as u64, "one request at a time");
    assert_eq!(tollgate.metric("tollgate_store_calls_in_flight"), Some(0.0));
    let asked = "tollgate_decision_duration_seconds_count{outcome=\"admitted\",store=\"redis\"}";
    assert!(value(asked) > 0.0);
    let certain =
        "tollgate_decision_duration_seconds_count{outcome=\"over_limit\",store=\"redis\"}";
    assert!(value(certain) > 0.0);
}

#[tokio::test]
async fn limit_that_binds_is_named() {
    let tollgate = Options::serving(POLICIES).start();
    let mut client = tollgate.client().await;
    // Two pass, with less left of the first limit than of the second.
    assert_eq!(codes(&mut client, &of("several"), 3).await, [OK, OK, OVER]);
    // Both fail, and the wide one waits longer.
    let asked = with_hits(of("several"), 3);
    assert_eq!(codes(&mut client, &asked, 1).await, [OVER]);
    let found = counts(&tollgate);
    let of_several: Vec<_> =
        found.iter().map(|((_, limit, outcome), n)| (&**limit, &**outcome, n.0)).collect();
    assert_eq!(
        of_several,
        [("2/DAY", "admitted", 1), ("2/DAY", "near_limit", 1), ("2/DAY", "over_limit", 2)]
    );
}

#[tokio::test]
async fn limits_of_clients_have_one_series_whatever_their_numbers() {
    let tollgate = Options::serving(POLICIES).start();
    let mut client = tollgate.client().await;
    let operator = Operator::of(&tollgate).await;
    for (value, requests) in [("a", 1), ("b", 2), ("c", 3)] {
        operator.upsert(limited("d", ("plain", value), limit(requests, Day))).await.unwrap();
        let asked = request("d", &[&[("plain", value)]]);
        let passed = codes(&mut client, &asked, 4).await;
        assert_eq!(passed.iter().filter(|code| **code == OK).count(), requests as usize);
    }
    let found = counts(&tollgate);
    assert!(
        found.keys().all(|(rule, limit, _)| rule == "plain" && limit == "(client)"),
        "{found:?}"
    );
    assert_eq!(found.values().map(|(decisions, _)| decisions).sum::<u64>(), 12);
}

#[tokio::test]
async fn degraded_decisions_are_counted_apart() {
    let Some(mut redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).set("failover.replicas=2").start();
    let mut client = tollgate.client().await;
    redis.stop();
    tollgate.wait_for_metric("tollgate_store_breaker{state=\"down\"}", 1.0);
    // The share of one of two.
    let seen = codes(&mut client, &of("plain"), 7).await;
    assert_eq!(seen.iter().filter(|code| **code == OK).count(), 5);
    let rows = expected(&[
        ("plain", "10/DAY", "degraded_admitted", 5, 5),
        ("plain", "10/DAY", "degraded_over_limit", 2, 2),
    ]);
    assert_eq!(counts(&tollgate), rows);
    let degraded: f64 = ["redis", "none"]
        .map(|store| {
            format!(
                "tollgate_decision_duration_seconds_count{{outcome=\"degraded\",store=\"{store}\"}}"
            )
        })
        .iter()
        .filter_map(|series| tollgate.metric(series))
        .sum();
    assert_eq!(degraded as u64, 7);
}

#[tokio::test]
async fn connections_and_streams_are_those_open_now() {
    let tollgate = Options::serving(POLICIES).start();
    let open = "tollgate_open_connections{listener=\"grpc\"}";
    assert_eq!(tollgate.metric(open), Some(0.0));
    let mut clients = [tollgate.client().await, tollgate.client().await];
    for client in &mut clients {
        codes(client, &of("plain"), 1).await;
    }
    assert_eq!(tollgate.metric(open), Some(2.0));
    drop(clients);
    let closed = async {
        while tollgate.metric(open) != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the connections end");
    assert_eq!(tollgate.metric("tollgate_open_streams{listener=\"grpc\"}"), Some(0.0));
    // The scrape itself.
    assert_eq!(tollgate.metric("tollgate_open_streams{listener=\"http\"}"), Some(1.0));
    let bytes = tollgate.metric("tollgate_memory_counters_bytes").unwrap();
    assert!((48.0..1e6).contains(&bytes), "{bytes}");
}

/// The metrics by `promtool`, which Prometheus reads them with.
#[tokio::test]
async fn text_format_is_that_of_prometheus() {
    let tollgate = Options::serving(POLICIES).set("metrics.names=both").start();
    codes(&mut tollgate.client().await, &of("plain"), 2).await;
    let head =
        "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\naccept: text/plain\r\n\r\n";
    let answer = http::exchange(tollgate.at.http, head.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("# TYPE tollgate_decisions_total counter"), "{body}");
    if !is_there("promtool") {
        return;
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Names of envoyproxy/ratelimit are not ours to choose.
    let ours: Vec<&str> =
        complaints.lines().filter(|line| !line.starts_with("ratelimit_service_")).collect();
    assert_eq!(ours, Vec::<&str>::new());
}
