//! Resources, from JSON as documentation has them.

use prost::Message as _;
use prost_types::Any;
use serde_json::{Value, json};
use tollgate::control::feeds::xds::pb::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};

use crate::ads::TYPE_URL;

/// The resources of a list.
pub fn resources(list: &Value) -> Vec<Any> {
    list.as_array().unwrap().iter().map(resource).collect()
}

pub fn resource(config: &Value) -> Any {
    let config = RateLimitConfig {
        name: text(config, "name"),
        domain: text(config, "domain"),
        descriptors: below(config),
    };
    Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() }
}

/// A resource whose only key `k` has so many requests an hour.
pub fn simple(domain: &str, requests: u32) -> Any {
    let limit = json!({"unit": "HOUR", "requests_per_unit": requests});
    let descriptors = json!([{"key": "k", "rate_limit": limit}]);
    resource(&json!({"name": domain, "domain": domain, "descriptors": descriptors}))
}

fn descriptor(node: &Value) -> RateLimitDescriptor {
    RateLimitDescriptor {
        key: text(node, "key"),
        value: text(node, "value"),
        rate_limit: node.get("rate_limit").map(policy),
        descriptors: below(node),
        shadow_mode: node["shadow_mode"].as_bool().unwrap_or_default(),
        ..RateLimitDescriptor::default()
    }
}

fn below(node: &Value) -> Vec<bytes::Bytes> {
    let nodes = node["descriptors"].as_array().into_iter().flatten();
    nodes.map(|node| descriptor(node).encode_to_vec().into()).collect()
}

fn policy(limit: &Value) -> RateLimitPolicy {
    let unit = match &limit["unit"] {
        Value::String(name) => RateLimitUnit::from_str_name(name).unwrap().into(),
        number => number.as_i64().unwrap_or_default().try_into().unwrap(),
    };
    let requests = limit["requests_per_unit"].as_u64().unwrap_or_default();
    RateLimitPolicy {
        unit,
        requests_per_unit: requests.try_into().unwrap(),
        unlimited: limit["unlimited"].as_bool().unwrap_or_default(),
        ..RateLimitPolicy::default()
    }
}

fn text(of: &Value, name: &str) -> String {
    of[name].as_str().unwrap_or_default().to_owned()
}
