//! Envoy with the filter and the route that Envoy Gateway writes.

use std::net::SocketAddr;

use crate::support::backend::Backend;
use crate::support::caller::{Answer, Caller};
use crate::support::envoy::{self, Envoy};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::wait::until;

/// Paths of the tests, each with the descriptors that its rules have.
struct Route {
    path: &'static str,
    /// The `rate_limits` of `RateLimitPerRoute`, YAML.
    rate_limits: String,
}

/// A rule without a match: a generic key, perhaps with what follows the actions.
fn rule(key: &str, more: &str) -> String {
    format!(
        "{{actions: [{{generic_key: {{descriptor_key: {key}, descriptor_value: {key}}}}}]{more}}}"
    )
}

/// Envoy with the filter, the cluster of tollgate and the metadata of costs.
const CONFIGURATION: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          http_filters:
          - name: envoy.filters.http.set_metadata
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
              metadata:
              - {metadata_namespace: usage, value: {ten: 10, two: 2, one: 1, three: 3, four: 4, many: 10000}}
              - metadata_namespace: limits
                value:
                  six: {requests_per_unit: 6, unit: HOUR}
                  two: {requests_per_unit: 2, unit: HOUR}
                  none: {requests_per_unit: 0, unit: HOUR}
          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: shop/edge/https
              timeout: 5s
              failure_mode_deny: @DENY@
              disable_x_envoy_ratelimited_header: true
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              rate_limit_service:
                transport_api_version: V3
                grpc_service: {envoy_grpc: {cluster_name: ratelimit_cluster}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
@ROUTES@
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @BACKEND@}}}}]}]
  - name: ratelimit_cluster
    type: STATIC
    connect_timeout: 10s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: ratelimit_cluster
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: @HOST@, port_value: @PORT@}}}}]}]
"#;

/// Envoy in front of a backend, and the backend.
async fn gateway(tollgate: SocketAddr, deny: bool, routes: &[Route]) -> Option<(Envoy, Backend)> {
    let program = envoy::installed()?;
    let backend = Backend::start("backend").await;
    let routes: Vec<String> = routes.iter().map(route).collect();
    let parts = [
        ("@DENY@", deny.to_string()),
        ("@ROUTES@", routes.join("\n")),
        ("@BACKEND@", backend.at.port().to_string()),
        ("@HOST@", tollgate.ip().to_string()),
        ("@PORT@", tollgate.port().to_string()),
    ];
    let configuration = parts
        .iter()
        .fold(CONFIGURATION.to_owned(), |text, (name, value)| text.replace(name, value));
    Some((Envoy::run(&program, &configuration).await, backend))
}

fn route(route: &Route) -> String {
    format!(
        r#"              - match: {{path: "{}"}}
                route: {{cluster: backend, prefix_rewrite: /health/liveness}}
                typed_per_filter_config:
                  envoy.filters.http.ratelimit:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                    domain: shop/edge/https
                    rate_limits: [{}]"#,
        route.path, route.rate_limits,
    )
}

async fn statuses(caller: &Caller, path: &str, times: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        statuses.push(caller.get(path).await.unwrap().status);
    }
    statuses
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

/// A tollgate with these descriptors, YAML, in the personality.
fn tollgate(redis: &RedisServer, descriptors: &str) -> Tollgate {
    let policies = format!("domain: shop/edge/https\ndescriptors:\n{descriptors}");
    let options = Options::serving(&policies).called_ratelimit();
    options.env("REDIS_URL", &format!("127.0.0.1:{}", redis.port())).start()
}

#[tokio::test]
async fn limit_headers_are_those_of_the_reference() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = tollgate(
        &redis,
        "  - {key: r, value: r, rate_limit: {unit: hour, requests_per_unit: 3}}\n",
    );
    let routes = [Route { path: "/r", rate_limits: rule("r", "") }];
    let Some((envoy, _backend)) = gateway(tollgate.at.grpc, false, &routes).await else { return };
    let caller = Caller::of(envoy.edge);
    let first = caller.get("/r").await.unwrap();
    assert_eq!((first.status, header(&first, "x-ratelimit-limit")), (200, "3, 3;w=3600"));
    assert_eq!(header(&first, "x-ratelimit-remaining"), "2");
    assert_eq!(statuses(&caller, "/r", 3).await, [200, 200, 429]);
}

/// `failClosed` of Envoy Gateway.
#[tokio::test]
async fn failure_mode_of_envoy_decides_while_redis_is_away() {
    let Some(mut redis) = RedisServer::start() else { return };
    let tollgate = tollgate(
        &redis,
        "  - {key: r, value: r, rate_limit: {unit: hour, requests_per_unit: 3}}\n",
    );
    let routes = || [Route { path: "/r", rate_limits: rule("r", "") }];
    let Some((closed, _backend)) = gateway(tollgate.at.grpc, true, &routes()).await else { return };
    let Some((open, _other)) = gateway(tollgate.at.grpc, false, &routes()).await else { return };
    let (closed, open) = (Caller::of(closed.edge), Caller::of(open.edge));
    assert_eq!(statuses(&closed, "/r", 1).await, [200]);
    redis.stop();
    assert_eq!(statuses(&closed, "/r", 2).await, [500, 500]);
    assert_eq!(statuses(&open, "/r", 5).await, [200; 5]);
    redis.restart();
    until("Redis decides again", async || {
        (closed.get("/r").await.unwrap().status != 500).then_some(())
    })
    .await;
}

/// More descriptors than tollgate looks at by its own defaults, which would be a denial.
#[tokio::test]
async fn rules_that_all_match_at_once_are_decided() {
    let Some(redis) = RedisServer::start() else { return };
    let node = |i: usize| {
        format!(
            "  - {{key: r{i}, value: r{i}, rate_limit: {{unit: hour, requests_per_unit: 2}}}}\n"
        )
    };
    let tollgate = tollgate(&redis, &(0..256).map(node).collect::<String>());
    let rules: Vec<String> = (0..256).map(|i| rule(&format!("r{i}"), "")).collect();
    let routes = [Route { path: "/r", rate_limits: rules.join(", ") }];
    let Some((envoy, _backend)) = gateway(tollgate.at.grpc, true, &routes).await else { return };
    let caller = Caller::of(envoy.edge);
    assert_eq!(statuses(&caller, "/r", 3).await, [200, 200, 429]);
}

/// A cost that is known afterwards: a peek at the request, a charge at the end of the stream.
fn usage(key: &str, cost: &str, limit: Option<&str>) -> String {
    let limit = limit.map(|limit| format!(", limit: {limit}")).unwrap_or_default();
    let peek = format!(", hits_addend: {{number: 0}}{limit}");
    let charge = format!(
        ", hits_addend: {{format: \"%DYNAMIC_METADATA(usage:{cost})%\"}}, apply_on_stream_done: true{limit}"
    );
    [rule(key, &peek), rule(key, &charge)].join(", ")
}

/// Calls `path` until it is denied; the calls that passed. Each charge is in force before the next
/// call.
async fn passed(caller: &Caller, tollgate: &Tollgate, path: &str) -> usize {
    let calls = || {
        let count = |code| {
            tollgate
                .metric(&format!("tollgate_requests_total{{code=\"{code}\"}}"))
                .unwrap_or_default()
        };
        count("ok") + count("over_limit")
    };
    for passed in 0..20 {
        let before = calls();
        let status = caller.get(path).await.unwrap().status;
        tollgate.wait_for("the charge", || calls() >= before + 2.0);
        if status == 429 {
            return passed;
        }
        assert_eq!(status, 200);
    }
    panic!("no end of the limit at {path}")
}

/// The tests of control planes, each: limit, cost, calls that pass.
#[tokio::test]
async fn usage_limits_end_where_control_planes_expect_it() {
    const TABLE: [(u32, &str, usize); 6] = [
        (21, "ten", 3),
        (6, "two", 4),
        (3, "one", 4),
        (12, "four", 4),
        (6, "three", 3),
        (10, "many", 1),
    ];
    let Some(redis) = RedisServer::start() else { return };
    let key = |(limit, cost, _): &(u32, &str, usize)| format!("r{limit}-{cost}");
    let node = |row: &(u32, &str, usize)| {
        let (key, limit) = (key(row), row.0);
        format!(
            "  - {{key: {key}, value: {key}, rate_limit: {{unit: hour, requests_per_unit: {limit}}}}}\n"
        )
    };
    let tollgate = tollgate(&redis, &TABLE.iter().map(node).collect::<String>());
    let routes = TABLE.each_ref().map(|row| {
        let path = format!("/{}", key(row)).leak();
        Route { path, rate_limits: usage(&key(row), row.1, None) }
    });
    let Some((envoy, _backend)) = gateway(tollgate.at.grpc, false, &routes).await else { return };
    let caller = Caller::of(envoy.edge);
    for row in &TABLE {
        let path = format!("/{}", key(row));
        assert_eq!(passed(&caller, &tollgate, &path).await, row.2, "{row:?}");
    }
}

/// The same with limits that the request brings.
#[tokio::test]
async fn usage_limits_that_the_request_brings_end_alike() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = tollgate(&redis, "  - {key: other}\n");
    let table = [("six", 4), ("two", 2), ("none", 1)];
    let routes = table.map(|(key, _)| {
        let limit = format!(
            "{{dynamic_metadata: {{metadata_key: {{key: limits, path: [{{key: {key}}}]}}}}}}"
        );
        Route { path: format!("/{key}").leak(), rate_limits: usage(key, "two", Some(&limit)) }
    });
    let Some((envoy, _backend)) = gateway(tollgate.at.grpc, false, &routes).await else { return };
    let caller = Caller::of(envoy.edge);
    for (key, calls) in table {
        assert_eq!(passed(&caller, &tollgate, &format!("/{key}")).await, calls, "{key}");
    }
}

/// What the tests of Envoy Gateway expect: by address, in shadow, with a cost of the request, and by
/// the value of a header.
#[tokio::test]
async fn limits_of_every_kind_end_where_envoy_gateway_expects_it() {
    let Some(redis) = RedisServer::start() else { return };
    let limit =
        |requests: u32| format!("rate_limit: {{unit: hour, requests_per_unit: {requests}}}");
    let descriptors = [
        format!("  - {{key: remote_address, {}}}\n", limit(3)),
        format!("  - {{key: s, value: s, shadow_mode: true, {}}}\n", limit(3)),
        format!("  - {{key: c, value: c, {}}}\n", limit(4)),
        format!("  - {{key: rule-0-match-0, {}}}\n", limit(1)),
    ];
    let tollgate = tollgate(&redis, &descriptors.concat());
    let user = "{actions: [{request_headers: {header_name: x-user-id, descriptor_key: \
                rule-0-match-0}}]}";
    let routes = [
        Route { path: "/address", rate_limits: "{actions: [{remote_address: {}}]}".to_owned() },
        Route { path: "/shadow", rate_limits: rule("s", "") },
        Route { path: "/cost", rate_limits: rule("c", ", hits_addend: {number: 2}") },
        Route { path: "/user", rate_limits: user.to_owned() },
    ];
    let Some((envoy, _backend)) = gateway(tollgate.at.grpc, false, &routes).await else { return };
    let caller = Caller::of(envoy.edge);
    assert_eq!(statuses(&caller, "/address", 4).await, [200, 200, 200, 429]);
    assert_eq!(statuses(&caller, "/shadow", 5).await, [200; 5]);
    assert_eq!(statuses(&caller, "/cost", 3).await, [200, 200, 429]);
    for (user, status) in [("7", 200), ("8", 200), ("7", 429), ("8", 429)] {
        let answer = caller.get_with("/user", "x-user-id", user.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "user {user}");
    }
    assert_eq!(statuses(&caller, "/user", 3).await, [200; 3], "no rule without the header");
}
