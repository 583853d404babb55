//! Traces, as an OTLP collector of the test's own gets them.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use tollgate::edge::pb::rate_limit_response::Code;
use tonic::Request;

use crate::collector::{Collector, Manner, Seen};
use crate::support::certs::Authority;
use crate::support::grpc::Client;
use crate::support::http::exchange;
use crate::support::redis::{RedisServer, free_port};
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "
domain: edge
descriptors:
  - key: plan
    value: free
    descriptors:
      - {key: user, sensitive: true, rate_limit: {unit: minute, requests_per_unit: 2, name: per_user}}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 1, unit_multiplier: 2}}
  - {key: tried, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const SERVER: &str = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

fn traced_by(collector: &Collector, protocol: &str) -> Options {
    exporting_to(collector.at).set(format!("traces.protocol={protocol}"))
}

fn exporting_to(address: SocketAddr) -> Options {
    Options::serving(POLICY)
        .set(format!("traces.endpoint=http://{address}"))
        .set("traces.interval=10ms")
}

fn parent(sampled: bool) -> String {
    format!("00-{TRACE}-{SPAN}-0{}", u8::from(sampled))
}

/// Asks with this `traceparent`.
async fn ask(client: &mut Client, parent: &str, entries: &[(&str, &str)]) -> Code {
    let mut call = Request::new(request("edge", &[entries]));
    if !parent.is_empty() {
        call.metadata_mut().insert("traceparent", parent.parse().unwrap());
        call.metadata_mut().insert("tracestate", "vendor=7".parse().unwrap());
    }
    client.should_rate_limit(call).await.unwrap().into_inner().overall_code()
}

fn is_server(seen: &Seen) -> bool {
    seen.span.name == SERVER
}

fn told(seen: &Seen) -> [String; 6] {
    ["domain", "rule", "limit", "outcome", "code", "hits"]
        .map(|key| seen.attribute(&format!("tollgate.{key}")).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn decision_is_a_span_below_that_of_the_caller_and_above_that_of_the_store() {
    let Some(redis) = RedisServer::start() else { return };
    let collector = Collector::grpc().await;
    let dir = tempfile::tempdir().unwrap();
    let headers = dir.path().join("headers");
    fs::write(&headers, "authorization=Bearer hunter2,x-scope-orgid=a\n").unwrap();
    let tollgate = traced_by(&collector, "grpc")
        .redis(redis.url())
        .set("traces.resource=service.namespace=edge,deployment.environment.name=test")
        .set(format!("traces.headers_file={}", headers.display()))
        .start();
    let mut client = tollgate.client().await;
    let entries = [("plan", "free"), ("user", "s3cret")];
    assert_eq!(ask(&mut client, &parent(true), &entries).await, Code::Ok);
    let seen = collector.span("the decision", is_server).await;
    let [trace, caller, own] = seen.ids();
    assert_eq!((&*trace, &*caller), (TRACE, SPAN));
    assert_eq!(seen.span.trace_state, "vendor=7");
    assert_eq!(seen.span.kind, 2, "a server");
    let expected = ["edge", "plan=free/user", "per_user", "admitted", "OK", "1"];
    assert_eq!(told(&seen), expected);
    assert_eq!(seen.attribute("tollgate.degraded").as_deref(), Some("false"));
    assert_eq!(seen.of_service("service.name").as_deref(), Some("tollgate"));
    assert_eq!(seen.of_service("service.namespace").as_deref(), Some("edge"));
    assert_eq!(seen.of_service("deployment.environment.name").as_deref(), Some("test"));
    assert_eq!(seen.headers["authorization"], "Bearer hunter2");
    assert_eq!(seen.headers["x-scope-orgid"], "a");
    let call = collector.span("the store call", |seen| seen.span.name == "store decide").await;
    assert_eq!(call.ids()[..2], [trace, own]);
    assert_eq!(call.attribute("tollgate.store").as_deref(), Some("redis"));
    let (outer, inner) = (&seen.span, &call.span);
    assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano);
    assert!(inner.start_time_unix_nano < inner.end_time_unix_nano);
    assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano);
    let all = format!("{:?}", collector.seen().into_iter().map(|seen| seen.span));
    assert!(!all.contains("s3cret"), "a value of a request: {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn span_has_the_limit_that_decides_and_its_outcome() {
    let collector = Collector::http().await;
    let tollgate = traced_by(&collector, "http").start();
    let mut client = tollgate.client().await;
    let mut seen = Vec::new();
    for (entries, expected) in [
        ([("path", "/a")], ["edge", "path", "1/2HOUR", "near_limit", "OK", "1"]),
        ([("path", "/a")], ["edge", "path", "1/2HOUR", "over_limit", "OVER_LIMIT", "1"]),
        ([("tried", "/a")], ["edge", "tried", "0/HOUR", "shadowed", "OK", "1"]),
        ([("nothing", "/a")], ["edge", "", "", "", "OK", ""]),
    ] {
        ask(&mut client, &parent(true), &entries).await;
        let spans = || collector.seen().into_iter().filter(is_server).count();
        tollgate.wait_for("its span", || spans() > seen.len());
        seen = collector.seen().into_iter().filter(is_server).collect();
        assert_eq!(told(seen.last().unwrap()), expected);
    }
    tollgate.wait_for_metric("tollgate_spans_exported_total", 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http_are_traced_too() {
    let collector = Collector::http().await;
    let tollgate = traced_by(&collector, "http").set("traces.service_name=limits").start();
    let body = r#"{"domain":"edge","descriptors":[{"entries":[{"key":"path","value":"/"}]}]}"#;
    let parent = parent(true);
    let head =
        format!("POST /json HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntraceparent: {parent}");
    let text = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert!(exchange(tollgate.at.http, text.as_bytes()).starts_with("HTTP/1.1 200"));
    let seen = collector.span("the decision", |seen| seen.span.name == "POST /json").await;
    assert_eq!(seen.ids()[..2], [TRACE, SPAN]);
    assert_eq!(seen.of_service("service.name").as_deref(), Some("limits"));
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_decides_what_is_sampled_and_the_ratio_the_rest() {
    let collector = Collector::grpc().await;
    let tollgate = traced_by(&collector, "grpc").start();
    let mut client = tollgate.client().await;
    for unsampled in [&parent(false), "", "00-nothing", &parent(true).to_uppercase()] {
        ask(&mut client, unsampled, &[("path", "/unsampled")]).await;
    }
    ask(&mut client, &parent(true), &[("path", "/sampled")]).await;
    collector.span("the decision", is_server).await;
    // Spans arrive in the order of their ends.
    assert_eq!(collector.seen().iter().filter(|seen| is_server(seen)).count(), 1);

    let collector = Collector::grpc().await;
    let tollgate = traced_by(&collector, "grpc").set("traces.ratio=1").start();
    let mut client = tollgate.client().await;
    ask(&mut client, &parent(false), &[("path", "/unsampled")]).await;
    ask(&mut client, "", &[("path", "/root")]).await;
    let root = collector.span("the decision", is_server).await;
    assert_eq!(root.ids()[1], "", "it has no parent");

    let collector = Collector::grpc().await;
    let options = traced_by(&collector, "grpc").set("traces.ratio=1");
    let tollgate = options.set("traces.parent_based=false").start();
    ask(&mut tollgate.client().await, &parent(false), &[("path", "/unsampled")]).await;
    let seen = collector.span("the decision", is_server).await;
    assert_eq!(seen.ids()[..2], [TRACE, SPAN]);
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_that_is_away_or_busy_gets_the_spans_when_it_is_back() {
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let tollgate = exporting_to(at).start();
    let mut client = tollgate.client().await;
    assert_eq!(ask(&mut client, &parent(true), &[("path", "/away")]).await, Code::Ok);
    let line = tollgate.wait_for_log("spans do not reach the collector");
    assert!(line.contains("refused"), "{line}");
    let collector = Collector::grpc_at(at, None).await;
    collector.span("the decision", is_server).await;
    tollgate.wait_for_log("spans reach the collector again");
    collector.behave(Manner::Busy);
    ask(&mut client, &parent(true), &[("path", "/busy")]).await;
    // One warning a minute, so it is the counter that tells.
    collector.behave(Manner::RejectsOne);
    tollgate.wait_for_metric("tollgate_spans_dropped_total", 1.0);
    collector.behave(Manner::Refuses);
    ask(&mut client, &parent(true), &[("path", "/refused")]).await;
    tollgate.wait_for_metric("tollgate_spans_dropped_total", 3.0);
    let warnings = tollgate.log().iter().filter(|line| line.contains("do not reach")).count();
    assert_eq!(warnings, 1, "{:#?}", tollgate.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_that_hangs_costs_spans_and_delays_neither_decisions_nor_the_end() {
    let collector = Collector::grpc().await;
    collector.behave(Manner::Hangs);
    let mut tollgate = traced_by(&collector, "grpc").set("traces.max_queue=8").start();
    let mut client = tollgate.client().await;
    for _ in 0..1_100 {
        ask(&mut client, &parent(true), &[("path", "/slow")]).await;
    }
    // Of two spans each, at most a queue and two batches wait.
    tollgate.wait_for_metric("tollgate_spans_dropped_total", 1_000.0);
    let (count, sum) = ("tollgate_requests_total{code=\"over_limit\"}", 1_099.0);
    assert_eq!(tollgate.metric(count), Some(sum));
    let begun = Instant::now();
    tollgate.signal("TERM");
    assert!(tollgate.wait().success());
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn last_spans_are_sent_before_the_end() {
    let collector = Collector::http().await;
    let mut tollgate = traced_by(&collector, "http").set("traces.interval=1h").start();
    let mut client = tollgate.client().await;
    for _ in 0..20 {
        ask(&mut client, &parent(true), &[("nothing", "/")]).await;
    }
    assert_eq!(collector.seen().len(), 0);
    drop(client);
    tollgate.signal("TERM");
    assert!(tollgate.wait().success());
    assert_eq!(collector.seen().iter().filter(|seen| is_server(seen)).count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_is_a_span() {
    let collector = Collector::grpc().await;
    let tollgate = traced_by(&collector, "grpc").start();
    let is_reload = |seen: &Seen| seen.span.name == "reload policies";
    fs::write(tollgate.policies(), POLICY.replace('1', "3")).unwrap();
    let seen = collector.span("the reload", is_reload).await;
    let told = ["feed", "policy_version", "domains", "rules"]
        .map(|key| seen.attribute(&format!("tollgate.{key}")).unwrap());
    assert_eq!(told, ["files", "2", "1", "3"]);
    fs::write(tollgate.policies(), "domain: [").unwrap();
    let failed = |seen: &Seen| is_reload(seen) && seen.span.status.as_ref().unwrap().code == 2;
    collector.span("the failed reload", failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_with_tls_is_verified() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("traces"));
    let ca = authority.file(dir.path().join("ca.crt"));
    let pair = authority.issue(dir.path(), "collector", &["localhost"]);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let collector = Collector::grpc_at(address, Some(&pair)).await;
    let start = |host: &str, ca: Option<&str>| {
        let endpoint = format!("traces.endpoint=https://{host}:{}", collector.at.port());
        let options = exporting_to(collector.at).set(endpoint);
        options.set(format!("traces.tls.ca_file={}", ca.unwrap())).start()
    };
    let sampled = async |tollgate: &Tollgate| {
        ask(&mut tollgate.client().await, &parent(true), &[("path", "/")]).await
    };
    let tollgate = start("localhost", ca.to_str());
    sampled(&tollgate).await;
    collector.span("the decision", is_server).await;
    let tollgate = start("127.0.0.1", ca.to_str());
    sampled(&tollgate).await;
    let line = tollgate.wait_for_log("spans do not reach the collector");
    assert!(line.contains("certificate"), "{line}");
}
