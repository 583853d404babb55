//! Envoy with the tracer of docs/envoy.md, tollgate and an OTLP collector: one trace for the request,
//! Envoy's spans above those of tollgate.

use std::net::SocketAddr;

use crate::collector::{Collector, Seen};
use crate::support::backend::Backend;
use crate::support::caller::Caller;
use crate::support::envoy::{self, Envoy};
use crate::support::tollgate::Options;

const POLICY: &str =
    "{domain: edge, descriptors: [{key: path, rate_limit: {unit: hour, requests_per_unit: 1}}]}";

/// Every request is limited by its path.
const CONFIGURATION: &str = r#"
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }
static_resources:
  listeners:
    - name: edge
      address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
TRACING
                http_filters:
                  - name: envoy.filters.http.ratelimit
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
                      domain: edge
                      timeout: 5s
                      failure_mode_deny: true
                      rate_limit_service:
                        transport_api_version: V3
                        grpc_service: { envoy_grpc: { cluster_name: ratelimit } }
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      rate_limits:
                        - actions: [ { request_headers: { header_name: ":path", descriptor_key: path } } ]
                      routes: [ { match: { prefix: / }, route: { cluster: backend } } ]
  clusters:
"#;

/// A cluster of one server, of gRPC unless it is the backend.
fn cluster(name: &str, at: SocketAddr) -> String {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let protocol =
        if name == "backend" { "http_protocol_options" } else { "http2_protocol_options" };
    let endpoint = format!("address: {}, port_value: {}", at.ip(), at.port());
    format!(
        r#"    - name: {name}
      connect_timeout: 5s
      typed_extension_protocol_options:
        {options}:
          "@type": type.googleapis.com/{options}
          explicit_http_config: {{ {protocol}: {{}} }}
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ {endpoint} }} }} }} }} ]
"#
    )
}

/// The block of the docs, which samples so much of a hundred requests.
fn configuration(servers: [SocketAddr; 3], percent: u32) -> String {
    let page = include_str!("../../docs/envoy.md");
    let (_, block) = page.split_once("<!-- test: file tracing.yaml -->").unwrap();
    let block = block.split("```").nth(1).unwrap().strip_prefix("yaml\n").unwrap();
    assert!(block.contains("value: 1 }"));
    let block = block.replace("value: 1 }", &format!("value: {percent} }}"));
    let indent = " ".repeat(16);
    let block = block.trim_end().replace('\n', &format!("\n{indent}"));
    let names = ["ratelimit", "otel_collector", "backend"].into_iter();
    let clusters: String = names.zip(servers).map(|(name, at)| cluster(name, at)).collect();
    CONFIGURATION.replace("TRACING", &format!("{indent}{block}")) + &clusters
}

fn of_tollgate(seen: &Seen) -> bool {
    seen.of_service("service.name").as_deref() == Some("tollgate")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decision_is_below_the_span_of_envoy_in_its_trace() {
    let Some(program) = envoy::installed() else { return };
    let collector = Collector::grpc().await;
    let tollgate = Options::serving(POLICY)
        .set(format!("traces.endpoint=http://{}", collector.at))
        .set("traces.interval=10ms")
        .start();
    let backend = Backend::start("traced").await;
    let servers = [tollgate.at.grpc, collector.at, backend.at];
    let envoy = Envoy::run(&program, &configuration(servers, 100)).await;
    let client = Caller::of(envoy.edge);
    for status in [200, 429] {
        assert_eq!(
            client.get("/api/v1/prices/A").await.unwrap().status,
            status,
            "{}",
            envoy.said()
        );
    }
    for code in ["OK", "OVER_LIMIT"] {
        let is_it = |seen: &Seen| seen.attribute("tollgate.code").as_deref() == Some(code);
        let decision = collector.span(code, is_it).await;
        let [trace, parent, own] = decision.ids();
        let above = |seen: &Seen| seen.ids()[2] == parent && !of_tollgate(seen);
        let above = collector.span("the span of Envoy's call", above).await;
        assert_eq!(above.ids()[0], trace);
        assert_eq!(above.of_service("service.name").as_deref(), Some("edge"));
        let root = |seen: &Seen| seen.ids()[0] == trace && seen.ids()[1].is_empty();
        assert!(!of_tollgate(&collector.span("the root", root).await));
        if code == "OK" {
            let call = |seen: &Seen| seen.span.name == "store decide" && seen.ids()[1] == own;
            collector.span("the store call", call).await;
        }
    }
    drop(envoy);
    // What Envoy does not sample has no span here either.
    let envoy = Envoy::run(&program, &configuration(servers, 0)).await;
    assert_eq!(Caller::of(envoy.edge).get("/api/v1/prices/B").await.unwrap().status, 200);
    let decisions = || collector.seen().into_iter().filter(of_tollgate).count();
    let before = decisions();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut caller = tollgate.client().await;
    let asked = crate::support::tollgate::request("edge", &[&[("path", "/c")]]);
    let mut asked = tonic::Request::new(asked);
    asked.metadata_mut().insert("traceparent", parent.parse().unwrap());
    caller.should_rate_limit(asked).await.unwrap();
    let later =
        |seen: &Seen| seen.ids()[0].starts_with("0af7") && seen.ids()[1] == "b7ad6b7169203331";
    collector.span("a later decision", later).await;
    // Spans of one process arrive in the order of their ends: a decision, and its store call before it.
    assert_eq!(decisions(), before + 2);
}
