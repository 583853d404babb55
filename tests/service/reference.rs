//! The metrics of envoyproxy/ratelimit: its names and labels, and its split of hits.

use std::collections::BTreeMap;

use tollgate::edge::admin::pb::Unit::Day;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_response::rate_limit::Unit;

use crate::support::grpc::{Client, ask, codes, refund, with_hits};
use crate::support::http;
use crate::support::operator::{Operator, client as limited, limit};
use crate::support::redis::free_port;
use crate::support::tollgate::{Options, Tollgate, request};

const KINDS: [&str; 5] = ["total_hits", "over_limit", "near_limit", "within_limit", "shadow_mode"];

/// The series whose names begin with `prefix`, as they are written, with their values.
fn series(tollgate: &Tollgate, prefix: &str) -> BTreeMap<String, f64> {
    let text = http::get(tollgate.at.http, "/metrics").body;
    let lines = text.lines().filter(|line| line.starts_with(prefix));
    let pair = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    lines.map(pair).collect()
}

/// Total, over, near, within and shadowed hits of the rule with these labels; none: no such series.
fn hits(tollgate: &Tollgate, labels: &str) -> Option<[u64; 5]> {
    let all = series(tollgate, "ratelimit_service_rate_limit_");
    let value = |kind| all.get(&format!("ratelimit_service_rate_limit_{kind}{{{labels}}}"));
    let found: Vec<u64> =
        KINDS.iter().filter_map(|kind| value(kind).map(|value| *value as u64)).collect();
    assert!(found.is_empty() || found.len() == 5, "{labels}: {all:?}");
    found.try_into().ok()
}

fn both(policies: &str) -> Options {
    Options::serving(policies).set("metrics.names=both")
}

fn of(key: &str) -> pb::RateLimitRequest {
    request("d", &[&[(key, "v")]])
}

/// A rule that is charged by every call: the only one whose counter passes its limit.
const SPLIT: &str = "
domain: d
descriptors:
  - {key: charged, rate_limit: {unit: year, requests_per_unit: 20, algorithm: ALGORITHM, charge: always}}
  - {key: plain, rate_limit: {unit: year, requests_per_unit: 20, algorithm: ALGORITHM}}
  - key: shadow
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 20, algorithm: ALGORITHM, charge: always}
";

/// Asks for `before` hits, then for `hits`; what the second call has added.
async fn added(tollgate: &Tollgate, key: &str, value: &str, before: u64, hits: u64) -> [u64; 5] {
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[(key, value)]]);
    let labels = format!("domain=\"d\",key1=\"{key}\"");
    if before > 0 {
        ask(&mut client, with_hits(asked.clone(), before)).await;
    }
    let then = self::hits(tollgate, &labels).unwrap_or_default();
    ask(&mut client, with_hits(asked, hits)).await;
    let now = self::hits(tollgate, &labels).unwrap_or_default();
    std::array::from_fn(|i| now[i] - then[i])
}

#[tokio::test]
async fn hits_are_split_as_the_reference_does() {
    for algorithm in ["fixed_window", "sliding_window", "token_bucket"] {
        let tollgate = both(&SPLIT.replace("ALGORITHM", algorithm)).start();
        for (row, (key, before, hits, expected)) in [
            // After > limit, before >= limit.
            ("charged", 20, 3, [3, 3, 0, 0, 0]),
            // After > limit, before < limit, on both sides of the threshold.
            ("charged", 15, 7, [7, 2, 4, 0, 0]),
            ("charged", 18, 7, [7, 5, 2, 0, 0]),
            // After <= threshold.
            ("charged", 0, 16, [16, 0, 0, 16, 0]),
            // After <= limit, before >= threshold.
            ("charged", 17, 2, [2, 0, 2, 2, 0]),
            // After <= limit, before < threshold < after.
            ("charged", 15, 3, [3, 0, 2, 3, 0]),
            // Shadowed.
            ("shadow", 15, 7, [7, 2, 4, 0, 2]),
            ("shadow", 15, 3, [3, 0, 2, 3, 0]),
            // A peek.
            ("charged", 18, 0, [0; 5]),
            ("charged", 25, 0, [0; 5]),
            // A call that is denied and not charged.
            ("plain", 15, 7, [7, 7, 0, 0, 0]),
            ("plain", 15, 3, [3, 0, 2, 3, 0]),
            ("plain", 20, 1, [1, 1, 0, 0, 0]),
            ("plain", 0, 21, [21, 21, 0, 0, 0]),
        ]
        .into_iter()
        .enumerate()
        {
            let found = added(&tollgate, key, &row.to_string(), before, hits).await;
            assert_eq!(found, expected, "{algorithm}: {key}, {hits} hits after {before}");
        }
    }
}

#[tokio::test]
async fn ratio_of_near_hits_is_a_setting() {
    let policies = SPLIT.replace("ALGORITHM", "fixed_window");
    let tollgate = both(&policies).set("metrics.near_limit_ratio=0.5").start();
    let found = added(&tollgate, "plain", "v", 9, 4).await;
    assert_eq!(found, [4, 0, 3, 4, 0]);
}

/// What Envoy Gateway generates for a route with rules by source address, and a shared policy.
const ENVOY_GATEWAY: &str = "
domain: shop/edge/https
descriptors:
  - key: httproute/shop/orders/rule/0/match/0/api_shop_example
    value: httproute/shop/orders/rule/0/match/0/api_shop_example
    descriptors:
      - key: masked_remote_address
        value: 0.0.0.0/0
        descriptors:
          - {key: remote_address, rate_limit: {unit: hour, requests_per_unit: 3}}
      - key: masked_remote_address
        value: invert:192.0.2.0/24
        rate_limit: {unit: hour, requests_per_unit: 3}
      - key: rule-2-match-0
        descriptors:
          - {key: rule-2-method, value: rule-2-method, rate_limit: {unit: hour, requests_per_unit: 9}}
          - {key: rule-2-path, value: rule-2-path, rate_limit: {unit: hour, requests_per_unit: 9}}
";

#[tokio::test]
async fn series_are_those_that_envoy_gateway_looks_for() {
    let tollgate = both(ENVOY_GATEWAY).start();
    let mut client = tollgate.client().await;
    let route = "httproute/shop/orders/rule/0/match/0/api_shop_example";
    let asked = |entries: &[(&str, &str)]| {
        request("shop/edge/https", &[&[&[(route, route)], entries].concat()])
    };
    assert!(series(&tollgate, "ratelimit_service_rate_limit_").is_empty(), "before the first hit");
    let each = asked(&[("masked_remote_address", "0.0.0.0/0"), ("remote_address", "10.1.2.3")]);
    let inverted = asked(&[("masked_remote_address", "invert:192.0.2.0/24")]);
    for request in [&each, &inverted] {
        let expected = [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit];
        assert_eq!(codes(&mut client, request, 4).await, expected);
    }
    for last in ["rule-2-method", "rule-2-path"] {
        let deeper = asked(&[("rule-2-match-0", "user"), (last, last)]);
        assert_eq!(codes(&mut client, &deeper, 1).await, [Code::Ok]);
    }
    let first = format!("domain=\"shop/edge/https\",key1=\"{route}_{route}\"");
    for (key2, expected) in [
        ("masked_remote_address_0_0_0_0/0", [4, 1, 1, 3, 0]),
        ("masked_remote_address_invert_192_0_2_0/24", [4, 1, 1, 3, 0]),
        // Two rules with the same first two nodes.
        ("rule-2-match-0", [2, 0, 0, 2, 0]),
    ] {
        assert_eq!(hits(&tollgate, &format!("{first},key2=\"{key2}\"")), Some(expected), "{key2}");
    }
}

/// The answer of `/metrics` to a scraper that accepts `accept`.
fn scraped(tollgate: &Tollgate, accept: &str) -> String {
    let head = "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n";
    http::exchange(tollgate.at.http, format!("{head}accept: {accept}\r\n\r\n").as_bytes())
}

#[tokio::test]
async fn names_are_bare_whatever_a_scraper_accepts() {
    let tollgate = both(
        "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 1}}\n",
    )
    .start();
    codes(&mut tollgate.client().await, &of("k"), 2).await;
    for accept in ["application/openmetrics-text;version=1.0.0", "text/plain;version=0.0.4", "*/*"]
    {
        let answer = scraped(&tollgate, accept);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        for line in [
            "ratelimit_service_rate_limit_total_hits{domain=\"d\",key1=\"k\"} 2",
            "ratelimit_service_rate_limit_over_limit{domain=\"d\",key1=\"k\"} 1",
            "ratelimit_service_total_requests{grpc_method=\"ShouldRateLimit\"} 2",
            "ratelimit_service_config_load_success 1",
            "ratelimit_service_config_load_error 0",
            "tollgate_decisions_total{domain=\"d\",rule=\"k\",limit=\"1/DAY\",outcome=\"near_limit\"} 1",
        ] {
            assert!(body.lines().any(|found| found == line), "{accept}: no {line} in\n{body}");
        }
        let type_of = |name: &str| {
            let lines = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            lines.filter_map(|line| line.split_once(' ')).find(|(found, _)| *found == name)
        };
        // A counter of OpenMetrics would have to end in _total.
        let open = !accept.starts_with("text/plain");
        let kind = if open { "unknown" } else { "untyped" };
        assert_eq!(type_of("ratelimit_service_rate_limit_total_hits").unwrap().1, kind);
        assert_eq!(body.lines().any(|line| line == "# EOF"), open);
    }
}

#[tokio::test]
async fn response_times_are_in_seconds_and_in_the_buckets_of_the_reference() {
    let tollgate = both(&SPLIT.replace("ALGORITHM", "fixed_window")).start();
    codes(&mut tollgate.client().await, &of("plain"), 5).await;
    let name = "ratelimit_service_response_time_seconds";
    let all = series(&tollgate, name);
    let buckets: Vec<String> = http::get(tollgate.at.http, "/metrics")
        .body
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{name}_bucket{{le=\""))?.split_once('"'))
        .map(|(bound, _)| bound.trim_end_matches(".0").to_owned())
        .collect();
    let expected =
        ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
    assert_eq!(buckets, expected);
    let method = "{grpc_method=\"ShouldRateLimit\"}";
    assert_eq!(all[&format!("{name}_count{method}")] as u64, 5);
    let sum = all[&format!("{name}_sum{method}")];
    assert!(sum > 0.0 && sum < 5.0, "{sum}");
    let last = all.iter().find(|(series, _)| series.contains("+Inf")).unwrap();
    assert_eq!(*last.1 as u64, 5, "{all:?}");
}

#[tokio::test]
async fn errors_and_the_kill_switch_are_counted() {
    let tollgate = both(&SPLIT.replace("ALGORITHM", "fixed_window")).set("mode=shadow").start();
    let mut client = tollgate.client().await;
    let many = with_hits(of("plain"), 30);
    assert_eq!(ask(&mut client, many).await.overall_code(), Code::Ok);
    client.should_rate_limit(request("", &[&[("k", "v")]])).await.unwrap_err();
    let metric = |name: &str| tollgate.metric(&format!("ratelimit_service_{name}"));
    assert_eq!(metric("global_shadow_mode"), Some(1.0));
    assert_eq!(metric("should_rate_limit_error{err_type=\"service_error\"}"), Some(1.0));
    assert_eq!(metric("should_rate_limit_error{err_type=\"redis_error\"}"), Some(0.0));
    // The rule itself is not in shadow mode.
    let found = hits(&tollgate, "domain=\"d\",key1=\"plain\"");
    assert_eq!(found, Some([30, 30, 0, 0, 0]));
    // One that is does not need the kill switch.
    ask(&mut client, with_hits(of("shadow"), 30)).await;
    assert_eq!(metric("global_shadow_mode"), Some(1.0));
}

#[tokio::test]
async fn calls_without_redis_are_errors_and_their_hits_are_not_lost() {
    let policies = SPLIT.replace("ALGORITHM", "fixed_window");
    for (mode, expected) in [("allow", [23, 0, 0, 23, 0]), ("deny", [23, 23, 0, 0, 0])] {
        let tollgate = both(&policies)
            .redis(format!("redis://127.0.0.1:{}", free_port()))
            .set(format!("store.on_failure={mode}"))
            .start();
        let mut client = tollgate.client().await;
        codes(&mut client, &of("plain"), 5).await;
        ask(&mut client, with_hits(of("plain"), 18)).await;
        let error = "ratelimit_service_should_rate_limit_error{err_type=\"redis_error\"}";
        assert_eq!(tollgate.metric(error), Some(6.0), "{mode}");
        // Nobody has counted them, so none is known to be near the limit.
        assert_eq!(hits(&tollgate, "domain=\"d\",key1=\"plain\""), Some(expected), "{mode}");
    }
}

/// What is not limited, or gives hits back, counts nowhere.
#[tokio::test]
async fn refunds_and_what_has_no_limit_are_no_hits() {
    let tollgate = both(
        "domain: d\ndescriptors:\n  - {key: free, rate_limit: {unlimited: true}}\n  \
         - {key: k, rate_limit: {unit: day, requests_per_unit: 9}}\n",
    )
    .start();
    let mut client = tollgate.client().await;
    for asked in [of("free"), of("other"), refund(of("k"), 3), request("strange", &[&[("k", "v")]])]
    {
        assert_eq!(ask(&mut client, asked).await.overall_code(), Code::Ok);
    }
    assert!(series(&tollgate, "ratelimit_service_rate_limit_").is_empty());
}

/// A request that brings its limit along.
fn overriding(entries: &[(&str, &str)]) -> pb::RateLimitRequest {
    let mut asked = request("d", &[entries]);
    let unit = Unit::Hour.into();
    let limit = pb::rate_limit_descriptor::RateLimitOverride {
        requests_per_unit: 1,
        unit,
        ..Default::default()
    };
    asked.descriptors[0].limit = Some(limit);
    asked
}

#[tokio::test]
async fn values_of_requests_are_in_labels_where_the_policy_says_so_and_bounded() {
    let policies = "
domain: d
descriptors:
  - {key: detailed, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - key: valued
    value_to_metric: true
    descriptors:
      - {key: tier, value: 'gold*', share_threshold: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: hidden, sensitive: true, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: named, value: s3cr3t-value, sensitive: true, rate_limit: {unit: day, requests_per_unit: 9}}
";
    let tollgate = both(policies).set("metrics.max_series=6").start();
    let mut client = tollgate.client().await;
    let total =
        |labels: &str| hits(&tollgate, &format!("domain=\"d\",{labels}")).map(|hits| hits[0]);
    for asked in [
        request("d", &[&[("detailed", "10.0.0.7")]]),
        request("d", &[&[("valued", "a:b"), ("tier", "golden")]]),
        request("d", &[&[("hidden", "s3cr3t-value")]]),
        request("d", &[&[("named", "s3cr3t-value")]]),
        overriding(&[("new", "v"), ("more", "w")]),
        overriding(&[("new", "v"), ("more", "w")]),
        overriding(&[("detailed", "10.0.0.7")]),
    ] {
        ask(&mut client, asked).await;
    }
    for (labels, expected) in [
        ("key1=\"detailed_10_0_0_7\"", 2),
        ("key1=\"valued_a_b\",key2=\"tier_gold*\"", 1),
        ("key1=\"named_<1>\"", 1),
        ("key1=\"new_v\",key2=\"more_w\"", 2),
    ] {
        assert_eq!(total(labels), Some(expected), "{labels}");
    }
    let text = http::get(tollgate.at.http, "/metrics").body;
    assert!(!text.contains("s3cr3t-value"), "{text}");
    assert!(text.contains("key1=\"hidden_"), "{text}");
    for i in 0..50 {
        ask(&mut client, request("d", &[&[("detailed", &i.to_string())]])).await;
        ask(&mut client, overriding(&[("new", &i.to_string())])).await;
    }
    // Four labels are used up by the requests before.
    let all = series(&tollgate, "ratelimit_service_rate_limit_total_hits");
    assert!(all.len() <= 10, "{all:?}");
    assert_eq!(all.values().sum::<f64>() as u64, 107, "no hit is lost: {all:?}");
    assert!(total("key1=\"detailed\"").unwrap() > 40 && total("key1=\"(override)\"").unwrap() > 40);
}

#[tokio::test]
async fn unknown_domains_and_clients_make_no_series() {
    let tollgate = both("domain: d\ndescriptors: []\n").start();
    let mut client = tollgate.client().await;
    let operator = Operator::of(&tollgate).await;
    for i in 0..20 {
        operator.upsert(limited("d", ("id", &i.to_string()), limit(5, Day))).await.unwrap();
        ask(&mut client, request("d", &[&[("id", &i.to_string())]])).await;
        ask(&mut client, request(&format!("domain {i}"), &[&[("k", "v")]])).await;
    }
    let all = series(&tollgate, "ratelimit_service_rate_limit_total_hits");
    let expected = "ratelimit_service_rate_limit_total_hits{domain=\"d\",key1=\"(client)\"}";
    assert_eq!(all, BTreeMap::from([(expected.to_owned(), 20.0)]));
}

#[test]
fn names_are_chosen_by_a_setting_and_those_of_the_process_are_always_there() {
    for (names, own, reference) in
        [("tollgate", true, false), ("reference", false, true), ("both", true, true)]
    {
        let tollgate = Options::default().set(format!("metrics.names={names}")).start();
        let has = |prefix: &str| !series(&tollgate, prefix).is_empty();
        assert_eq!((has("tollgate_"), has("ratelimit_")), (own, reference), "{names}");
        let process = series(&tollgate, "process_");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let between = |name: &str, least: f64, most: f64| {
            let value = process[name];
            assert!((least..=most).contains(&value), "{name}: {process:?}");
        };
        between("process_resident_memory_bytes", 1e6, 1e9);
        between("process_virtual_memory_bytes", 1e6, 1e13);
        between("process_cpu_seconds_total", 0.0, 600.0);
        between("process_open_fds", 5.0, 1e4);
        between("process_max_fds", process["process_open_fds"], 1e12);
        between("process_start_time_seconds", now - 600.0, now + 2.0);
    }
}

#[test]
fn metrics_are_on_both_listeners_where_the_setting_says_so() {
    let start = |metrics: &str, path: &str| {
        Options::default()
            .set("http.metrics_listen=127.0.0.1:0")
            .set(format!("http.metrics={metrics}"))
            .set(format!("metrics.path={path}"))
            .start()
    };
    for (metrics, path, status) in [("true", "/metrics", 200), ("false", "/stats/prom", 404)] {
        let tollgate = start(metrics, path);
        assert_eq!(http::get(tollgate.at.http, "/metrics").status, status);
        let own = tollgate.at.metrics.unwrap();
        assert_eq!(http::get(own, path).status, 200);
        assert_eq!(http::get(own, "/other").status, 404);
    }
    let hidden = Options::default().set("http.metrics=false").start();
    assert_eq!(http::get(hidden.at.http, "/metrics").status, 404);
}

/// Decides all at once, so that what cores count is added up.
#[tokio::test(flavor = "multi_thread")]
async fn hits_of_all_cores_are_added_up() {
    let tollgate = both(&SPLIT.replace("ALGORITHM", "fixed_window")).start();
    let hit = |mut client: Client| async move {
        for _ in 0..50 {
            ask(&mut client, of("plain")).await;
        }
    };
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        callers.spawn(hit(tollgate.client().await));
    }
    callers.join_all().await;
    let found = hits(&tollgate, "domain=\"d\",key1=\"plain\"");
    assert_eq!(found, Some([200, 180, 4, 20, 0]));
    let calls = "ratelimit_service_total_requests{grpc_method=\"ShouldRateLimit\"}";
    assert_eq!(tollgate.metric(calls), Some(200.0));
}
