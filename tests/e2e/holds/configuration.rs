//! The shipped configuration of Envoy, with the descriptors of holds and patience for a busy
//! machine.

use std::net::SocketAddr;

use serde_json::{Value, json};

const SHIPPED: &str = include_str!("../../../deploy/envoy/envoy.yaml");

/// The time that Envoy gives the upstream: longer than any test leaves an answer open.
const ROUTE_TIMEOUT: &str = "120s";
/// The time of the one request that is to exceed it.
const SHORT_TIMEOUT: &str = "0.5s";

/// The metadata namespace of the shipped filter.
pub const NAMESPACE: &str = "tollgate";

pub fn of(tollgate: SocketAddr, upstream: SocketAddr) -> Value {
    let mut envoy: Value = serde_saphyr::from_str(SHIPPED).unwrap();
    let any = address(SocketAddr::from(([127, 0, 0, 1], 0)));
    envoy["admin"]["address"] = any.clone();
    envoy["static_resources"]["listeners"][0]["address"] = any;
    for route in routes(&mut envoy) {
        if let Some(route) = route.get_mut("route") {
            route["timeout"] = json!(ROUTE_TIMEOUT);
            if let Some(policy) = route.get_mut("retry_policy") {
                policy["per_try_timeout"] = json!(ROUTE_TIMEOUT);
            }
        }
    }
    let late = json!({ "cluster": "backends", "timeout": SHORT_TIMEOUT });
    routes(&mut envoy).insert(0, json!({ "match": { "path": "/api/late" }, "route": late }));
    let filter = &mut filters(&mut envoy)[0]["typed_config"];
    assert_eq!(filter["metadata_namespace"], NAMESPACE);
    filter["timeout"] = json!("10s");
    filter["rate_limit_service"]["grpc_service"]["retry_policy"]["retry_back_off"]["max_interval"] =
        json!("5s");
    filter["rate_limits"] = rate_limits(NAMESPACE, "x-", "%RESP(x-tokens)%");
    cluster(&mut envoy, "ratelimit")["load_assignment"]["endpoints"] = endpoints(tollgate);
    let backends = cluster(&mut envoy, "backends");
    backends["load_assignment"]["endpoints"] = endpoints(upstream);
    // The upstream fails on purpose and must be asked again.
    let backends = backends.as_object_mut().unwrap();
    backends.remove("health_checks");
    backends.remove("outlier_detection");
    envoy
}

/// The HTTP connection manager of the edge.
pub fn manager(envoy: &mut Value) -> &mut Value {
    let listener = &mut envoy["static_resources"]["listeners"][0];
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// The HTTP filters: tollgate's is the first, the router the last.
pub fn filters(envoy: &mut Value) -> &mut Vec<Value> {
    manager(envoy)["http_filters"].as_array_mut().unwrap()
}

pub fn routes(envoy: &mut Value) -> &mut Vec<Value> {
    let host = &mut manager(envoy)["route_config"]["virtual_hosts"][0];
    host["routes"].as_array_mut().unwrap()
}

pub fn cluster<'a>(envoy: &'a mut Value, name: &str) -> &'a mut Value {
    let clusters = envoy["static_resources"]["clusters"].as_array_mut().unwrap();
    clusters.iter_mut().find(|cluster| cluster["name"] == name).unwrap()
}

/// Sets how Envoy speaks to the upstream.
pub fn speak(envoy: &mut Value, protocol: &Value) {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster(envoy, "backends")["typed_extension_protocol_options"] = json!({ options: {
        "@type": format!("type.googleapis.com/{options}"),
        "explicit_http_config": protocol,
    } });
}

/// The descriptors, from headers that begin like this: at admission, and at the end with this cost
/// and without. The handle is in the namespace of the filter.
pub fn rate_limits(namespace: &str, prefix: &str, cost: &str) -> Value {
    let entry = |key: &str| {
        let header = if key == "budget" { "user" } else { key };
        let header = format!("{prefix}{header}");
        json!({ "request_headers": { "header_name": header, "descriptor_key": key } })
    };
    let hold = json!({ "metadata": { "descriptor_key": "hold", "source": "DYNAMIC",
        "metadata_key": { "key": namespace, "path": [{ "key": "hold" }] } } });
    let report =
        json!({ "generic_key": { "descriptor_key": "report", "descriptor_value": "sent" } });
    let asks = |key: &str| json!({ "actions": [entry(key)] });
    let ends =
        |entry: Value| json!({ "actions": [entry, hold.clone()], "apply_on_stream_done": true });
    let with = |mut limit: Value, hits: &str| {
        limit["hits_addend"] = json!({ "format": hits });
        limit
    };
    json!([
        asks("user"),
        asks("turn"),
        asks("brief"),
        with(asks("budget"), &format!("%REQ({prefix}max-tokens)%")),
        asks("budget"),
        ends(entry("user")),
        ends(entry("turn")),
        ends(entry("brief")),
        with(ends(entry("budget")), cost),
        ends(entry("budget")),
        with(ends(report), "%UPSTREAM_WIRE_BYTES_SENT%"),
    ])
}

/// A member of a cluster.
pub fn endpoints(at: SocketAddr) -> Value {
    json!([{ "lb_endpoints": [{ "endpoint": { "address": address(at) } }] }])
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}
