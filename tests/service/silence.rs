//! Mistakes and outages leave a trace: descriptors that nothing limits, denials in the log, limits
//! while the store is away.

use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::{RateLimitRequest, RateLimitResponse};

use crate::support::grpc::{ask, metadata};
use crate::support::tollgate::{Options, Tollgate, request};

const POLICIES: &str = "
domain: edge
descriptors:
  - {key: k, rate_limit: {name: per-day, unit: day, requests_per_unit: 1}}
  - {key: secret, sensitive: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: banned, rate_limit: {unit: second, requests_per_unit: 0}}
  - {key: banned_for_long, rate_limit: {unit: month, requests_per_unit: 0}}
";

async fn reason(tollgate: &Tollgate, request: RateLimitRequest) -> String {
    let answer = ask(&mut tollgate.client().await, request).await;
    assert_eq!(answer.overall_code(), Code::Ok);
    metadata(&answer)["descriptors"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

fn lines(tollgate: &Tollgate, with: &str) -> Vec<String> {
    tollgate.log().into_iter().filter(|line| line.contains(with)).collect()
}

#[tokio::test]
async fn descriptors_that_nothing_limits_are_named_and_counted() {
    let tollgate = Options::serving(POLICIES).start();
    assert_eq!(reason(&tollgate, request("edge", &[&[("k", "v")]])).await, "");
    assert_eq!(reason(&tollgate, request("edge", &[&[("typo", "v")]])).await, "no_rule");
    assert_eq!(reason(&tollgate, request("egde", &[&[("k", "v")]])).await, "unknown_domain");
    for i in 0..200 {
        reason(&tollgate, request(&format!("x{i}\n"), &[&[("k", "v")]])).await;
    }
    let of = |domain, reason| {
        tollgate
            .metric(&format!("tollgate_unmatched_total{{domain=\"{domain}\",reason=\"{reason}\"}}"))
    };
    assert_eq!(of("edge", "no_rule"), Some(1.0));
    assert_eq!(of("(unknown)", "unknown_domain"), Some(201.0), "one series for all of them");
}

#[tokio::test]
async fn unknown_domains_are_warned_of_once_with_the_nearest_known_one() {
    let tollgate = Options::serving(POLICIES).start();
    for _ in 0..3 {
        reason(&tollgate, request("egde", &[&[("k", "v")]])).await;
    }
    reason(&tollgate, request("\u{1b}[2J", &[&[("k", "v")]])).await;
    for i in 0..200 {
        reason(&tollgate, request(&format!("other-{i}"), &[&[("k", "v")]])).await;
    }
    reason(&tollgate, request("edge", &[&[("k", "v")]])).await;
    let warned = || lines(&tollgate, "names this domain");
    tollgate.wait_for("a hundred warnings", || warned().len() >= 100);
    let warned = warned();
    assert_eq!(warned.len(), 100, "{warned:#?}");
    assert!(warned[0].contains("egde") && warned[0].contains("did you mean"), "{}", warned[0]);
    assert!(warned[0].contains("WARN") && warned[0].contains("edge"), "{}", warned[0]);
    assert!(warned[1].contains("%1B[2J") && !warned[1].contains("did you"), "{}", warned[1]);
}

#[tokio::test]
async fn denials_have_lines_at_debug_that_are_bounded_and_hide_what_is_sensitive() {
    let tollgate = Options::serving(POLICIES).set("log.level=debug").start();
    let mut client = tollgate.client().await;
    for _ in 0..2 {
        ask(&mut client, request("edge", &[&[("secret", "hunter2")]])).await;
    }
    tollgate.wait_for("a line", || !lines(&tollgate, "tollgate::denied").is_empty());
    let line = lines(&tollgate, "tollgate::denied").remove(0);
    for part in ["DEBUG", "edge", "secret", "1 per minute", "denied"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("hunter2"), "{line}");
    for _ in 0..200 {
        ask(&mut client, request("edge", &[&[("banned", "v")]])).await;
    }
    let dropped = tollgate.metric("tollgate_log_lines_dropped_total{log=\"denied\"}").unwrap();
    assert!(dropped > 0.0);
    let logged = 201 - dropped as usize;
    tollgate.wait_for("its lines", || lines(&tollgate, "tollgate::denied").len() >= logged);
    assert_eq!(lines(&tollgate, "tollgate::denied").len(), logged);

    let quiet = Options::serving(POLICIES).start();
    ask(&mut quiet.client().await, request("edge", &[&[("banned", "v")]])).await;
    assert_eq!(quiet.metric("tollgate_log_lines_dropped_total{log=\"denied\"}"), Some(0.0));
    assert!(lines(&quiet, "tollgate::denied").is_empty());
}

/// An answer that names no limit has no `x-ratelimit` headers in Envoy.
fn names_no_limit(answer: &RateLimitResponse) -> bool {
    answer.statuses.iter().all(|status| status.current_limit.is_none())
        && answer.response_headers_to_add.is_empty()
}

#[tokio::test]
async fn without_the_store_no_limit_is_reported() {
    for headers in ["reference", "draft"] {
        let tollgate = Options::serving(POLICIES)
            .redis("redis://127.0.0.1:1")
            .set(format!("response.headers={headers}"))
            .set("store.on_failure=allow")
            .start();
        let mut client = tollgate.client().await;
        let passes = ask(&mut client, request("edge", &[&[("k", "v")]])).await;
        assert_eq!(passes.overall_code(), Code::Ok);
        assert!(names_no_limit(&passes), "{passes:?}");
        assert_eq!(passes.statuses[0].duration_until_reset, None);
        assert_eq!(metadata(&passes)["descriptors"][0]["degraded"], true);
    }
    let tollgate = Options::serving(POLICIES)
        .redis("redis://127.0.0.1:1")
        .set("response.headers=draft")
        .set("store.on_failure=deny")
        .start();
    let denied = ask(&mut tollgate.client().await, request("edge", &[&[("k", "v")]])).await;
    assert_eq!(denied.overall_code(), Code::OverLimit);
    assert!(names_no_limit(&denied), "{denied:?}");
    assert_eq!(denied.statuses[0].duration_until_reset.unwrap().seconds, 1);
}

#[tokio::test]
async fn blocked_caller_is_to_come_back_in_a_day() {
    let tollgate = Options::serving(POLICIES).start();
    let mut client = tollgate.client().await;
    for (key, days) in [("banned", 1), ("banned_for_long", 30)] {
        let denied = ask(&mut client, request("edge", &[&[(key, "v")]])).await;
        let [status] = denied.statuses.as_slice() else { panic!("{denied:?}") };
        assert_eq!(status.code(), Code::OverLimit);
        assert_eq!(status.current_limit.as_ref().unwrap().requests_per_unit, 0);
        let wait = status.duration_until_reset.unwrap().seconds;
        assert_eq!(wait, days * 86_400, "{key}");
    }
}
