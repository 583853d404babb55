//! TLS 1.3 with certificates as Envoy Gateway makes them, its environment, and what it sends.

use std::time::Duration;

use serde_json::json;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::ads::Ads;
use crate::certs::{Authority, Mounted, certificate};
use crate::resources::resources;
use crate::support::grpc::{ask, codes, with_hits};
use crate::support::http;
use crate::support::tollgate::{Options, Tollgate, descriptor, request};

pub const ROUTE: &str = "httproute/shop/orders/rule/0/match/0/api_shop_example";

/// Two gateways' worth of policies, as Envoy Gateway generates them.
pub fn generated() -> serde_json::Value {
    let user = json!([{"key": "rule-0-method", "value": "rule-0-method",
        "rate_limit": {"unit": "MINUTE", "requests_per_unit": 100}}]);
    let path = json!([{"key": "rule-1-match-0", "value": "rule-1-match-0", "shadow_mode": true,
        "rate_limit": {"unit": "HOUR", "requests_per_unit": 5}}]);
    let address = json!([{"key": "remote_address",
        "rate_limit": {"unit": "SECOND", "requests_per_unit": 20}}]);
    json!([
        {"name": "shop/edge/https", "domain": "shop/edge/https", "descriptors": [
            {"key": ROUTE, "value": ROUTE, "descriptors": [
                {"key": "rule-0-match-0", "descriptors": user},
                {"key": "rule-1-path", "value": "rule-1-path", "shadow_mode": true,
                    "descriptors": path},
                {"key": "rule-2-match--1", "value": "rule-2-match--1",
                    "rate_limit": {"unit": "SECOND", "requests_per_unit": 1000}}]}]},
        {"name": "shop/limits", "domain": "shop/limits", "descriptors": [
            {"key": "shop/limits/rule/1", "value": "shop/limits/rule/1", "descriptors": [
                {"key": "masked_remote_address", "value": "10.0.0.0/8",
                    "descriptors": address}]}]},
    ])
}

/// A tollgate in the environment of Envoy Gateway.
fn start(ads: &Ads, mounted: &Mounted) -> Tollgate {
    let path = |file| mounted.path(file).display().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("tls.crt"), path("tls.key"));
    let port = ads.at.port();
    Options::default()
        .env("TOLLGATE__COMPAT", "ratelimit")
        .env("CONFIG_TYPE", "GRPC_XDS_SOTW")
        .env("LOG_LEVEL", "info")
        // A name, which is resolved, and not that of the certificate.
        .env("CONFIG_GRPC_XDS_SERVER_URL", &format!("localhost:{port}"))
        .env("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "envoy-gateway")
        .env("CONFIG_GRPC_XDS_NODE_ID", "envoy-ratelimit")
        .env("CONFIG_GRPC_XDS_NODE_METADATA", "zone=a,team=edge")
        .env("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "x-zone:a,authorization:hunter2")
        .env("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true")
        .env("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", &cert)
        .env("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", &key)
        .env("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", &ca)
        .env("FORCE_START_WITHOUT_INITIAL_CONFIG", "true")
        .start()
}

#[tokio::test]
async fn what_envoy_gateway_sends_over_mutual_tls_is_in_force() {
    let authority = Authority::new();
    let mut mounted = Mounted::new();
    mounted.swap(|to| authority.issue(to, "*", &["*.envoy-gateway-system"]));
    let ads = Ads::at("127.0.0.1:0".parse().unwrap(), Some(authority.server()));
    let tollgate = start(&ads, &mounted);
    assert_eq!(http::get(tollgate.at.http, "/healthcheck").status, 200, "before any response");
    let mut client = tollgate.client().await;
    let early = client.should_rate_limit(request("shop/limits", &[&[("k", "v")]])).await;
    let status = early.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.message(), "no rate limit configuration loaded");

    assert_eq!(ads.certificate(), certificate(&mounted.path("tls.crt")).to_vec());
    let headers = ads.opened();
    assert_eq!(headers.get("x-zone").unwrap(), "a");
    assert_eq!(headers.get("authorization").unwrap(), "hunter2");
    let node = ads.subscribed().node.unwrap();
    assert_eq!((&*node.id, &*node.user_agent_name), ("envoy-ratelimit", "tollgate"));
    assert_eq!(node.metadata.unwrap().fields.len(), 2);
    ads.push("1", "n1", resources(&generated()));
    let ack = ads.request();
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("1", "n1"));
    assert_eq!((ack.error_detail, ack.node.unwrap().id), (None, "envoy-ratelimit".to_owned()));

    let user: &[(&str, &str)] =
        &[(ROUTE, ROUTE), ("rule-0-match-0", "7"), ("rule-0-method", "rule-0-method")];
    let any = descriptor(&[(ROUTE, ROUTE), ("rule-2-match--1", "rule-2-match--1")]);
    let mut at_request = with_hits(request("shop/edge/https", &[user]), 0);
    at_request.descriptors.push(any);
    let answer = ask(&mut client, at_request).await;
    assert_eq!(answer.overall_code(), Code::Ok);
    let limits: Vec<_> = answer.statuses.iter().map(requests_per_unit).collect();
    assert_eq!(limits, [100, 1_000]);

    let address: &[(&str, &str)] = &[
        ("shop/limits/rule/1", "shop/limits/rule/1"),
        ("masked_remote_address", "10.0.0.0/8"),
        ("remote_address", "10.1.2.3"),
    ];
    let shared = ask(&mut client, request("shop/limits", &[address])).await;
    assert_eq!((shared.overall_code(), requests_per_unit(&shared.statuses[0])), (Code::Ok, 20));

    let cost = with_hits(request("shop/edge/https", &[user]), 60);
    assert_eq!(codes(&mut client, &cost, 2).await, [Code::Ok, Code::OverLimit]);
    let shadow: &[(&str, &str)] =
        &[(ROUTE, ROUTE), ("rule-1-path", "rule-1-path"), ("rule-1-match-0", "rule-1-match-0")];
    let shadowed = codes(&mut client, &request("shop/edge/https", &[shadow]), 7).await;
    assert_eq!(shadowed, [Code::Ok; 7]);
    assert_eq!(tollgate.errors(), [""; 0]);
}

fn requests_per_unit(status: &pb::rate_limit_response::DescriptorStatus) -> u32 {
    status.current_limit.as_ref().expect("a limit").requests_per_unit
}

#[tokio::test]
async fn connection_after_a_swap_shows_the_new_certificate() {
    let authority = Authority::new();
    let mut mounted = Mounted::new();
    mounted.swap(|to| authority.issue(to, "*", &["*.ns"]));
    let ads = Ads::at("127.0.0.1:0".parse().unwrap(), Some(authority.server()));
    let tollgate = start(&ads, &mounted);
    let first = ads.certificate();
    ads.subscribed();
    ads.accepted("1", "a", resources(&generated()));

    mounted.swap(|to| authority.issue(to, "*", &["*.ns"]));
    assert!(ads.event_within(Duration::from_millis(300)).is_none(), "an open stream lives on");
    ads.end_stream();
    let second = ads.certificate();
    assert_ne!(first, second);
    assert_eq!(second, certificate(&mounted.path("tls.crt")).to_vec());
    ads.subscribed();
    ads.accepted("1", "b", resources(&generated()));
    tollgate.wait_for_metric("tollgate_xds_responses_total{result=\"unchanged\"}", 1.0);
    assert_eq!(tollgate.metric("tollgate_xds_responses_total{result=\"ok\"}"), Some(1.0));
}

#[tokio::test]
async fn files_that_come_later_are_used_and_their_lack_is_logged_once() {
    let authority = Authority::new();
    let mut mounted = Mounted::new();
    let ads = Ads::at("127.0.0.1:0".parse().unwrap(), Some(authority.server()));
    let options = crate::options(&ads)
        .set("xds.tls.enabled=true")
        .set("xds.tls.server_name=envoy-gateway")
        .set("xds.backoff.initial=50ms")
        .set("xds.backoff.max=50ms");
    let files = ["ca_file=ca.crt", "cert_file=tls.crt", "key_file=tls.key"];
    let options = files.into_iter().fold(options, |options, file| {
        let (setting, name) = file.split_once('=').unwrap();
        options.set(format!("xds.tls.{setting}={}", mounted.path(name).display()))
    });
    let tollgate = options.start();
    tollgate.wait_for_log("no stream of the control plane");
    assert_eq!(tollgate.metric("tollgate_xds_connected"), Some(0.0));
    assert!(ads.event_within(Duration::from_millis(300)).is_none());
    mounted.swap(|to| authority.issue(to, "*", &["*.ns"]));
    ads.subscribed();
    ads.accepted("1", "a", resources(&generated()));
    tollgate.wait_for_metric("tollgate_xds_connected", 1.0);
    let failures = tollgate.log().into_iter().filter(|line| line.contains("no stream of"));
    let failures: Vec<_> = failures.collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("xds.tls.ca_file"), "{failures:?}");
}
