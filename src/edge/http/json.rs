//! Rate-limit requests and responses as proto3 JSON.
//!
//! Source: the JSON mapping of proto3. Names are in camelCase or as in the proto; unknown names are
//! rejected. Enums are names or numbers, 64-bit integers numbers or strings.

use bytes::Bytes;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value as PbValue};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::edge::pb;
use crate::edge::pb::rate_limit_descriptor as pbd;
pub(super) use crate::edge::pb::rate_limit_response::Code;
use crate::edge::pb::rate_limit_response::rate_limit::Unit;
use crate::edge::pb::rate_limit_response::{DescriptorStatus, RateLimit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[derive(Default)]
struct Request {
    domain: String,
    descriptors: Vec<Descriptor>,
    #[serde(alias = "hits_addend", deserialize_with = "number")]
    hits_addend: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Descriptor {
    entries: Vec<Entry>,
    limit: Option<Limit>,
    #[serde(alias = "hits_addend", deserialize_with = "optional_number")]
    hits_addend: Option<u64>,
    #[serde(alias = "is_negative_hits")]
    is_negative_hits: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    key: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Limit {
    #[serde(alias = "requests_per_unit")]
    requests_per_unit: u32,
    #[serde(deserialize_with = "unit")]
    unit: i32,
    #[serde(alias = "unit_multiplier")]
    unit_multiplier: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(optional_number(deserializer)?.unwrap_or_default())
}

fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<NumberOrText>::deserialize(deserializer)? {
        None => Ok(None),
        Some(NumberOrText::Number(number)) => Ok(Some(number)),
        Some(NumberOrText::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn unit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => i32::try_from(number).map_err(serde::de::Error::custom),
        NumberOrText::Text(name) => Unit::from_str_name(&name)
            .map(Into::into)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown unit {name:?}"))),
    }
}

/// Parses a request.
pub(super) fn request(body: &[u8]) -> Result<pb::RateLimitRequest, serde_json::Error> {
    let request: Request = serde_json::from_slice(body)?;
    let hits_addend = u32::try_from(request.hits_addend)
        .map_err(|_| serde::de::Error::custom("hitsAddend must fit 32 bits"))?;
    Ok(pb::RateLimitRequest {
        domain: Bytes::from(request.domain),
        descriptors: request.descriptors.into_iter().map(descriptor).collect(),
        hits_addend,
    })
}

fn descriptor(descriptor: Descriptor) -> pb::RateLimitDescriptor {
    let entry =
        |entry: Entry| pbd::Entry { key: Bytes::from(entry.key), value: Bytes::from(entry.value) };
    let limit = |limit: Limit| pbd::RateLimitOverride {
        requests_per_unit: limit.requests_per_unit,
        unit: limit.unit,
        unit_multiplier: limit.unit_multiplier,
    };
    pb::RateLimitDescriptor {
        entries: descriptor.entries.into_iter().map(entry).collect(),
        limit: descriptor.limit.map(limit),
        hits_addend: descriptor.hits_addend,
        is_negative_hits: descriptor.is_negative_hits,
    }
}

/// Encodes a response as JSON, without empty and zero fields.
pub(super) fn response(response: &pb::RateLimitResponse) -> Value {
    let mut map = Map::new();
    map.insert("overallCode".to_owned(), json!(response.overall_code().as_str_name()));
    if !response.statuses.is_empty() {
        let statuses: Vec<Value> = response.statuses.iter().map(status).collect();
        map.insert("statuses".to_owned(), json!(statuses));
    }
    for (name, headers) in [
        ("responseHeadersToAdd", &response.response_headers_to_add),
        ("requestHeadersToAdd", &response.request_headers_to_add),
    ] {
        let header = |h: &pb::HeaderValue| json!({"key": h.key, "value": h.value});
        if !headers.is_empty() {
            let headers: Vec<Value> = headers.iter().map(header).collect();
            map.insert(name.to_owned(), json!(headers));
        }
    }
    if !response.dynamic_metadata.is_empty()
        && let Ok(metadata) = Struct::decode(response.dynamic_metadata.clone())
    {
        map.insert("dynamicMetadata".to_owned(), from_struct(&metadata));
    }
    Value::Object(map)
}

fn status(status: &DescriptorStatus) -> Value {
    let mut map = Map::new();
    map.insert("code".to_owned(), json!(status.code().as_str_name()));
    if let Some(limit) = &status.current_limit {
        map.insert("currentLimit".to_owned(), current_limit(limit));
    }
    if status.limit_remaining > 0 {
        map.insert("limitRemaining".to_owned(), json!(status.limit_remaining));
    }
    if let Some(reset) = &status.duration_until_reset {
        map.insert("durationUntilReset".to_owned(), json!(format!("{}s", reset.seconds)));
    }
    Value::Object(map)
}

fn current_limit(limit: &RateLimit) -> Value {
    let mut map = Map::new();
    if !limit.name.is_empty() {
        map.insert("name".to_owned(), json!(limit.name));
    }
    if limit.requests_per_unit > 0 {
        map.insert("requestsPerUnit".to_owned(), json!(limit.requests_per_unit));
    }
    map.insert("unit".to_owned(), json!(limit.unit().as_str_name()));
    if let Some(multiplier) = limit.unit_multiplier {
        map.insert("unitMultiplier".to_owned(), json!(multiplier));
    }
    Value::Object(map)
}

/// A `google.protobuf.Struct` as JSON.
pub(crate) fn from_struct(fields: &Struct) -> Value {
    fields.fields.iter().map(|(key, value)| (key.clone(), from_value(value))).collect()
}

fn from_value(value: &PbValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::StructValue(fields)) => from_struct(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(from_value).collect(),
    }
}
