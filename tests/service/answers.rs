//! What answers and metrics say beside the decision: dynamic metadata, response headers, series per value, and the
//! kill switch. Sensitive values are in none of them, nor in Redis, nor in the log.

use serde_json::json;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{ask, codes, metadata, with_hits};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, entry, request};

const OVER: Code = Code::OverLimit;
const OK: Code = Code::Ok;

#[tokio::test]
async fn metadata_of_an_admitted_and_of_a_denied_request() {
    let policies = "
domain: d
descriptors:
  - key: client
    value: gold-*
    metadata: {tier: gold, both: first, nested: {a: 1, b: [x, true, null]}}
    rate_limits:
      - {name: per day, unit: day, requests_per_unit: 2}
      - {unit: hour, unit_multiplier: 2, requests_per_unit: 1}
  - key: path
    metadata: {both: second, nested: {a: 2, c: 1.5}, kind: path}
    rate_limit: {unit: day, requests_per_unit: 1000}
  - {key: trial, shadow_mode: true, metadata: {trial: true}, rate_limit: {unit: day, requests_per_unit: 0}}
";
    let tollgate = Options::serving(policies).start();
    let mut client = tollgate.client().await;
    let mut asked = request("d", &[&[("client", "gold-1")], &[("path", "/a\nb")], &[("x", "y")]]);
    asked.descriptors.push(pb::RateLimitDescriptor {
        entries: vec![entry(b"trial", b"\xff")],
        ..Default::default()
    });
    let admitted = ask(&mut client, asked.clone()).await;
    let golden = json!({
        "domain": "d",
        "descriptors": [
            {"entries": ["client=gold-1"], "rule": "client=gold-*"},
            {"entries": ["path=/a%0Ab"], "rule": "path"},
            {"entries": ["x=y"], "reason": "no_rule"},
            {"entries": ["trial=%FF"], "rule": "trial", "shadow": true, "limits_over": ["0 per day"]},
        ],
        "metadata": {
            "tier": "gold", "both": "first", "kind": "path", "trial": true,
            "nested": {"a": 1.0, "b": ["x", true, null], "c": 1.5},
        },
    });
    assert_eq!(metadata(&admitted), golden);

    let denied = ask(&mut client, asked).await;
    assert_eq!(denied.overall_code(), OVER);
    let mut found = metadata(&denied);
    let wait = found["descriptors"][0]["retry_after_ms"].take().as_f64().unwrap();
    assert!((7_140_000.0..=7_200_000.0).contains(&wait), "{wait}");
    let golden = json!({
        "domain": "d",
        "descriptors": [
            {"entries": ["client=gold-1"], "rule": "client=gold-*", "over_limit": true,
             "limits_over": ["1 per 2 hours"], "retry_after_ms": null},
            {"entries": ["path=/a%0Ab"], "rule": "path"},
            {"entries": ["x=y"], "reason": "no_rule"},
            {"entries": ["trial=%FF"], "rule": "trial", "shadow": true, "limits_over": ["0 per day"]},
        ],
        "metadata": {"both": "second", "nested": {"a": 2.0, "c": 1.5}, "kind": "path", "trial": true},
    });
    assert_eq!(found, golden);

    let mut bad = request("d", &[&[("x", "y")]]);
    bad.descriptors[0].limit = Some(pb::rate_limit_descriptor::RateLimitOverride::default());
    let bad = metadata(&ask(&mut client, bad).await);
    assert_eq!(bad["descriptors"][0]["reason"], "invalid_override");
    let many: Vec<&[(&str, &str)]> = vec![&[("x", "y")]; 129];
    let large = metadata(&ask(&mut client, request("d", &many)).await);
    assert_eq!(large["descriptors"][128]["reason"], "out_of_bounds");
}

#[tokio::test]
async fn metadata_can_be_switched_off() {
    let policies =
        "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]}";
    let tollgate = Options::serving(policies).set("response.dynamic_metadata=false").start();
    let answer = ask(&mut tollgate.client().await, request("d", &[&[("k", "v")]])).await;
    assert_eq!(answer.dynamic_metadata, "");
}

const SECRET: &str = "s3cr3t-value";

#[tokio::test]
async fn sensitive_value_is_nowhere() {
    let policies = "
domain: d
descriptors:
  - key: api_key
    sensitive: true
    value_to_metric: true
    detailed_metric: true
    rate_limit: {unit: day, requests_per_unit: 1}
    descriptors:
      - {key: path, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: named, value: s3cr3t-value, sensitive: true, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - key: bare
    sensitive: true
    descriptors:
      - {key: leaf, rate_limit: {unit: day, requests_per_unit: 1}}
";
    let Some(redis) = RedisServer::start() else { return };
    let config = format!("sensitive_key: {SECRET}-key\n");
    let options = Options::serving(policies).config(&config).redis(redis.url());
    let tollgate = options.set("log.level=debug").set("store.deadline=5s").start();
    let mut client = tollgate.client().await;
    let paths: [&[(&str, &str)]; 6] = [
        &[("api_key", SECRET)],
        &[("api_key", SECRET), ("path", "/a")],
        &[("named", SECRET)],
        &[("bare", SECRET), ("leaf", "x")],
        // No rule matches these; the value is no less of a secret.
        &[("bare", SECRET)],
        &[("api_key", SECRET), ("other", "x")],
    ];
    let mut seen = String::new();
    for path in paths {
        let mut asked = request("d", &[path]);
        for _ in 0..2 {
            seen += &metadata(&ask(&mut client, asked.clone()).await).to_string();
        }
        asked.descriptors[0].limit = Some(pb::rate_limit_descriptor::RateLimitOverride {
            requests_per_unit: 1,
            unit: 4,
            unit_multiplier: Some(3),
        });
        for code in [OK, OVER] {
            let answer = ask(&mut client, asked.clone()).await;
            assert_eq!(answer.overall_code(), code, "{path:?}");
            seen += &metadata(&answer).to_string();
        }
    }
    let wide = vec![paths[0]; 129];
    seen += &metadata(&ask(&mut client, request("d", &wide)).await).to_string();
    std::fs::write(tollgate.config(), format!("{config}mode: off\n")).unwrap();
    tollgate.signal("HUP");
    tollgate.wait_for_log("policies reloaded");
    seen += &metadata(&ask(&mut client, request("d", &[paths[0]])).await).to_string();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("*").query(&mut redis.connection()).expect("keys");
    assert!(keys.len() >= paths.len(), "{keys:?}");
    seen += &keys.join("\n");
    seen += &http::get(tollgate.at.http, "/metrics").body;
    seen += &tollgate.log().join("\n");
    assert!(seen.contains("api_key") && seen.contains("tollgate_decisions_total"));
    assert!(!seen.contains(SECRET), "{:?}", seen.lines().find(|line| line.contains(SECRET)));
}

#[tokio::test]
async fn series_of_values_are_made_where_a_rule_asks_up_to_the_bound() {
    let policies = "
domain: d
descriptors:
  - {key: plain, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: detailed, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: shared, value: a*, share_threshold: true, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - key: method
    value_to_metric: true
    descriptors:
      - {key: path, rate_limit: {unit: day, requests_per_unit: 0}}
";
    let tollgate = Options::serving(policies).set("metrics.max_series=3").start();
    let mut client = tollgate.client().await;
    let mut hit = async |path: &[(&str, &str)]| ask(&mut client, request("d", &[path])).await;
    hit(&[("plain", "v")]).await;
    hit(&[("detailed", "v\"1\\\n")]).await;
    hit(&[("shared", "a1")]).await;
    hit(&[("shared", "a2")]).await;
    hit(&[("method", "GET"), ("path", "/x")]).await;
    hit(&[("detailed", "second")]).await;
    for beyond in 0..10 {
        hit(&[("detailed", &format!("beyond {beyond}"))]).await;
    }
    hit(&[("detailed", "second")]).await;
    let count = |rule: &str, outcome: &str| {
        let limit = if outcome == "over_limit" { "0/DAY" } else { "9/DAY" };
        let labels =
            format!("{{domain=\"d\",rule=\"{rule}\",limit=\"{limit}\",outcome=\"{outcome}\"}}");
        tollgate.metric(&format!("tollgate_decisions_total{labels}"))
    };
    assert_eq!(count("plain", "admitted"), Some(1.0));
    assert_eq!(count("detailed=v\\\"1\\\\%0A", "admitted"), Some(1.0));
    // Its values share a counter, and the series that the rule has anyway.
    assert_eq!(count("shared=a*", "admitted"), Some(2.0));
    assert_eq!(count("method=GET/path", "over_limit"), Some(1.0));
    assert_eq!(count("detailed=second", "admitted"), Some(2.0), "a series that is there goes on");
    assert_eq!(count("detailed", "admitted"), Some(10.0), "what is beyond counts together");
    assert_eq!(count("detailed=beyond 0", "admitted"), None);
}

/// Whether a request over its limit is denied in this domain.
async fn denies(tollgate: &Tollgate, domain: &str) -> bool {
    let asked = with_hits(request(domain, &[&[("k", "v")]]), 2);
    ask(&mut tollgate.client().await, asked).await.overall_code() == OVER
}

fn two_domains(dir: &std::path::Path) {
    for domain in ["a", "b"] {
        let text = format!(
            "{{domain: {domain}, descriptors: [{{key: k, rate_limit: {{unit: day, requests_per_unit: 1}}}}]}}"
        );
        std::fs::write(dir.join(format!("{domain}.yaml")), text).unwrap();
    }
}

#[tokio::test]
async fn kill_switch_is_set_for_all_or_one_domain_and_changes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    two_domains(dir.path());
    let tollgate = Options::default().policies(dir.path()).config("modes: {a: shadow}\n").start();
    assert_eq!((denies(&tollgate, "a").await, denies(&tollgate, "b").await), (false, true));
    for (config, expected) in [
        ("mode: off\nmodes: {a: enforce}\n", (true, false)),
        ("mode: shadow\n", (false, false)),
        ("mode: nonsense\n", (false, false)),
        ("mode: enforce\n", (true, true)),
    ] {
        std::fs::write(tollgate.config(), config).unwrap();
        tollgate.signal("HUP");
        let start = std::time::Instant::now();
        while (denies(&tollgate, "a").await, denies(&tollgate, "b").await) != expected {
            assert!(start.elapsed().as_secs() < 1, "{config:?} is not in force within a second");
        }
    }
    let refused = tollgate.wait_for_log("the settings stay as they are");
    assert!(refused.contains("tollgate.yaml:1:7: mode: ") && refused.contains("nonsense"));
}

#[tokio::test]
async fn shadow_mode_counts_and_off_does_not() {
    let dir = tempfile::tempdir().unwrap();
    two_domains(dir.path());
    let asked = request("a", &[&[("k", "v")]]);
    let shadow = Options::default().policies(dir.path()).set("mode=shadow").start();
    let mut client = shadow.client().await;
    assert_eq!(codes(&mut client, &asked, 2).await, [OK; 2]);
    let over = ask(&mut client, asked.clone()).await;
    assert_eq!(metadata(&over)["descriptors"][0]["shadow"], true);
    assert_eq!(over.statuses[0].current_limit.as_ref().unwrap().requests_per_unit, 1);
    assert_eq!(shadow.metric("tollgate_memory_counters"), Some(1.0));
    let off = Options::default().policies(dir.path()).env("TOLLGATE__MODE", "off").start();
    let answer = ask(&mut off.client().await, asked).await;
    assert_eq!((answer.overall_code(), answer.statuses.len()), (OK, 1));
    assert_eq!(off.metric("tollgate_memory_counters"), Some(0.0));
}

fn headers(answer: &pb::RateLimitResponse) -> Vec<(&str, &str)> {
    let headers = answer.response_headers_to_add.iter();
    headers.map(|header| (header.key.as_str(), header.value.as_str())).collect()
}

#[tokio::test]
async fn response_headers_follow_the_reference_or_the_draft() {
    let policies = "
domain: d
descriptors:
  - {key: wide, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: tight, rate_limit: {name: per day, unit: day, unit_multiplier: 2, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 0}}
";
    let none = Options::serving(policies).start();
    let both = request("d", &[&[("wide", "v")], &[("tight", "v")]]);
    assert_eq!(headers(&ask(&mut none.client().await, both.clone()).await), []);

    let set = ["response.headers=reference", "response.limit_header=x-limit"];
    let options = Options::serving(policies).set(set[0]).set(set[1]);
    let tollgate = options.start();
    let mut client = tollgate.client().await;
    let tight = [("x-limit", "1"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "172800")];
    for code in [OK, OVER] {
        let answer = ask(&mut client, both.clone()).await;
        assert_eq!(answer.overall_code(), code);
        assert_eq!(headers(&answer), tight);
    }
    let unlimited = ask(&mut client, request("d", &[&[("x", "y")]])).await;
    assert_eq!(headers(&unlimited), []);
    // A quota that failed does not speak for a request that passes by another.
    let passed = ask(&mut client, request("d", &[&[("wide", "w")]])).await;
    assert_eq!(headers(&passed)[..2], [("x-limit", "9"), ("ratelimit-remaining", "8")]);

    let tollgate = Options::serving(policies).set("response.headers=draft").start();
    let mut client = tollgate.client().await;
    let policy = "\"limit0\";q=9;w=86400, \"per day\";q=1;w=172800";
    for (state, code) in [
        ("\"limit0\";r=8;t=86400, \"per day\";r=0;t=172800", OK),
        ("\"limit0\";r=7;t=86400, \"per day\";r=0;t=172800", OVER),
    ] {
        let answer = ask(&mut client, both.clone()).await;
        assert_eq!(answer.overall_code(), code);
        assert_eq!(headers(&answer), [("ratelimit-policy", policy), ("ratelimit", state)]);
    }
}
