//! The debug listener: the limits in force as envoyproxy/ratelimit prints them, and nothing secret.

use crate::support::http::get;
use crate::support::operator::Operator;
use crate::support::tollgate::{Options, Tollgate, command};

const POLICIES: &str = "
domain: shop/edge/https
descriptors:
  - key: route
    value: route/0
    descriptors:
      - key: rule-0-match-0
        descriptors:
          - {key: rule-0-method, value: rule-0-method, rate_limit: {unit: MINUTE, requests_per_unit: 100, algorithm: fixed_window}}
      - key: rule-1-path
        value: 10.0.0.0/8
        shadow_mode: true
        rate_limit: {unit: hour, requests_per_unit: 5, unit_multiplier: 2, charge: always}
  - key: free
    rate_limit: {unlimited: true}
  - key: api_key
    quota_mode: true
    rate_limits:
      - {name: fast, unit: second, requests_per_unit: 10, algorithm: token_bucket, burst: 30}
      - {unit: day, requests_per_unit: 0, algorithm: fixed_window}
  - {key: api_key, value: hunter2, sensitive: true, rate_limit: {unit: day, requests_per_unit: 9, algorithm: fixed_window}}
";

fn serving(policies: &str) -> Tollgate {
    Options::serving(policies).set("debug.listen=127.0.0.1:0").start()
}

#[tokio::test]
async fn limits_in_force_have_a_line_each_in_the_order_of_the_policies() {
    let tollgate = serving(POLICIES);
    let debug = tollgate.at.debug.unwrap();
    let answer = get(debug, "/rlconfig");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
    let expected = "\
shop/edge/https.route_route/0.rule-0-match-0.rule-0-method_rule-0-method: unit=MINUTE requests_per_unit=100, shadow_mode: false, quota_mode: false, algorithm: fixed_window
shop/edge/https.route_route/0.rule-1-path_10.0.0.0/8: unit=HOUR requests_per_unit=5, shadow_mode: true, quota_mode: false, unit_multiplier: 2, algorithm: sliding_window, slots: 10, charge: always
shop/edge/https.free: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false, unlimited: true
shop/edge/https.api_key: unit=SECOND requests_per_unit=10, shadow_mode: false, quota_mode: true, algorithm: token_bucket, burst: 30, name: fast
shop/edge/https.api_key: unit=DAY requests_per_unit=0, shadow_mode: false, quota_mode: true, algorithm: fixed_window
shop/edge/https.api_key_<1>: unit=DAY requests_per_unit=9, shadow_mode: false, quota_mode: false, algorithm: fixed_window
";
    assert_eq!(answer.body, expected);
    let operator = Operator::of(&tollgate).await;
    operator.apply("domain: new\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 1}}\n").await;
    let line = "new.k: unit=DAY requests_per_unit=1, shadow_mode: false, quota_mode: false";
    tollgate.wait_for(line, || get(debug, "/rlconfig").body.contains(line));
}

#[test]
fn paths_are_listed_and_profiles_are_none() {
    let tollgate = serving("domain: d\ndescriptors: []\n");
    let debug = tollgate.at.debug.unwrap();
    for path in ["/", "/unknown", "/rlconfig/more"] {
        let answer = get(debug, path);
        let lines: Vec<_> = answer.body.lines().collect();
        assert_eq!(answer.status, 200, "{path}");
        assert!(lines.is_sorted() && lines.iter().all(|line| line.contains(": ")), "{lines:?}");
        assert!(answer.body.contains("/rlconfig: ") && answer.body.contains("/stats: "));
    }
    assert_eq!(get(debug, "/rlconfig").body, "", "no limits, no lines");
    for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/heap"] {
        assert_eq!(get(debug, path).status, 404, "{path}");
    }
    let stats: serde_json::Value = serde_json::from_str(&get(debug, "/stats").body).unwrap();
    assert_eq!(stats["pid"], tollgate.pid());
    assert!(stats["resident_memory_bytes"].as_u64().unwrap() > 1_000_000, "{stats}");
    assert!(stats["open_fds"].as_u64().unwrap() > 4, "{stats}");
}

#[test]
fn listener_is_off_by_default_and_needs_an_address_of_its_own() {
    assert!(Options::default().start().at.debug.is_none());
    let taken = ["print-config", "--set", "debug.listen=0.0.0.0:8080"];
    let output = command().args(taken).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("debug.listen") && said.contains("is taken by http.listen"), "{said}");
}
