//! Sizes of large installations. Prints what they cost; a test of a debug build bounds it loosely.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::ads::Ads;
use crate::options;
use crate::resources::resource;
use crate::support::grpc::{ask, codes};
use crate::support::tollgate::{Tollgate, descriptor, request};

const DOMAINS: usize = 10_000;

fn gateway(index: usize, requests: u32) -> Value {
    let domain = format!("shop-{index}/edge/https");
    let route = format!("httproute/shop-{index}/orders/rule/0/match/0/api_shop_example");
    let limit = json!({"unit": "HOUR", "requests_per_unit": requests});
    json!({"name": domain, "domain": domain, "descriptors": [
        {"key": route, "value": route, "descriptors": [
            {"key": "rule-0-match-0", "descriptors": [
                {"key": "rule-0-method", "value": "rule-0-method", "rate_limit": limit}]},
            {"key": "rule-1-match--1", "value": "rule-1-match--1", "rate_limit": limit}]}]})
}

/// Resident memory in MiB.
fn memory(tollgate: &Tollgate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", tollgate.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn ten_thousand_domains_are_compiled_and_changed() {
    let ads = Ads::start();
    let tollgate = options(&ads).start();
    ads.subscribed();
    let before = memory(&tollgate);
    let resources: Vec<_> = (0..DOMAINS).map(|index| resource(&gateway(index, 2))).collect();
    let bytes: usize = resources.iter().map(|any| any.value.len()).sum();
    for (nonce, what) in [("a", "new"), ("b", "unchanged"), ("c", "one changed")] {
        let mut resources = resources.clone();
        if nonce == "c" {
            resources[0] = resource(&gateway(0, 3));
        }
        let begun = Instant::now();
        ads.accepted(nonce, nonce, resources);
        let (took, mib) = (begun.elapsed(), memory(&tollgate));
        println!("{DOMAINS} domains, {bytes} bytes, {what}: {took:?}, {before} to {mib} MiB");
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
    assert_eq!(tollgate.metric("tollgate_domains"), Some(DOMAINS as f64));
    assert_eq!(tollgate.metric("tollgate_rules"), Some(2.0 * DOMAINS as f64));
    let route = "httproute/shop-9999/orders/rule/0/match/0/api_shop_example";
    let entries = [(route, route), ("rule-0-match-0", "7"), ("rule-0-method", "rule-0-method")];
    let call = request("shop-9999/edge/https", &[&entries]);
    let mut client = tollgate.client().await;
    assert_eq!(codes(&mut client, &call, 3).await, [Code::Ok, Code::Ok, Code::OverLimit]);
}

/// Bounds for what Envoy Gateway generates at most.
const BOUNDS: [&str; 3] =
    ["bounds.message_bytes=4194304", "bounds.entries=2048", "bounds.descriptors=2048"];

#[tokio::test]
async fn chain_of_all_header_matches_is_decided() {
    const LEVELS: usize = 1_150;
    let ads = Ads::start();
    let tollgate =
        BOUNDS.into_iter().fold(options(&ads), crate::support::tollgate::Options::set).start();
    ads.subscribed();
    let names: Vec<_> = (0..LEVELS).map(|level| format!("rule-0-match-{level}")).collect();
    let limit = json!({"unit": "HOUR", "requests_per_unit": 2});
    ads.accepted("1", "a", vec![chain(&names, &limit)]);
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let call = request("chain", &[&entries]);
    let mut client = tollgate.client().await;
    assert_eq!(codes(&mut client, &call, 3).await, [Code::Ok, Code::Ok, Code::OverLimit]);
    let shorter = request("chain", &[&entries[1..]]);
    assert_eq!(codes(&mut client, &shorter, 3).await, [Code::Ok; 3]);
    ads.accepted("2", "b", Vec::new());
}

/// A chain of nodes; built from its end, as JSON of this depth cannot be written.
fn chain(names: &[String], limit: &Value) -> prost_types::Any {
    use prost::Message as _;
    use tollgate::control::feeds::xds::pb::{
        RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
    };

    let policy = RateLimitPolicy {
        unit: RateLimitUnit::from_str_name(limit["unit"].as_str().unwrap()).unwrap().into(),
        requests_per_unit: limit["requests_per_unit"].as_u64().unwrap().try_into().unwrap(),
        ..RateLimitPolicy::default()
    };
    let mut below: Vec<bytes::Bytes> = Vec::new();
    for (index, name) in names.iter().enumerate().rev() {
        let node = RateLimitDescriptor {
            key: name.clone(),
            value: name.clone(),
            rate_limit: (index + 1 == names.len()).then(|| policy.clone()),
            descriptors: below,
            ..RateLimitDescriptor::default()
        };
        below = vec![node.encode_to_vec().into()];
    }
    let config = RateLimitConfig {
        name: "chain".to_owned(),
        domain: "chain".to_owned(),
        descriptors: below,
    };
    prost_types::Any { type_url: crate::ads::TYPE_URL.to_owned(), value: config.encode_to_vec() }
}

#[tokio::test]
async fn all_rules_of_a_policy_may_match_one_request() {
    const RULES: usize = 256;
    let ads = Ads::start();
    let tollgate =
        BOUNDS.into_iter().fold(options(&ads), crate::support::tollgate::Options::set).start();
    ads.subscribed();
    let names: Vec<_> = (0..RULES).map(|rule| format!("rule-{rule}-match--1")).collect();
    let limit = json!({"unit": "HOUR", "requests_per_unit": 2});
    let rules: Vec<_> =
        names.iter().map(|name| json!({"key": name, "value": name, "rate_limit": limit})).collect();
    let route = json!([{"key": "r", "value": "r", "descriptors": rules}]);
    ads.accepted(
        "1",
        "a",
        vec![resource(&json!({"name": "d", "domain": "d", "descriptors": route}))],
    );
    let descriptors = names.iter().map(|name| descriptor(&[("r", "r"), (name, name)])).collect();
    let call = pb::RateLimitRequest { domain: "d".into(), descriptors, hits_addend: 0 };
    let mut client = tollgate.client().await;
    let answer = ask(&mut client, call.clone()).await;
    assert_eq!(answer.overall_code(), Code::Ok);
    assert!(answer.statuses.iter().all(|status| status.limit_remaining == 1));
    assert_eq!(codes(&mut client, &call, 2).await, [Code::Ok, Code::OverLimit]);
}
