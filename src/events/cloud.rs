//! Events as `CloudEvents`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::limiter::events::LimitEvent;

/// An event in the JSON format of `CloudEvents`.
#[derive(Debug, Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    domain: &'a str,
    descriptor: &'a str,
    rule: &'a str,
    limit: &'a str,
    used: u64,
    capacity: u64,
    shadow: bool,
}

/// The JSON of `events`, which `source` saw.
pub(super) fn batch(source: &str, events: &[Arc<LimitEvent>]) -> Vec<u8> {
    let event = |event: &'_ Arc<LimitEvent>| serde_json::to_value(cloud(source, event));
    let events: Vec<_> = events.iter().filter_map(|one| event(one).ok()).collect();
    serde_json::Value::from(events).to_string().into_bytes()
}

fn cloud<'a>(source: &'a str, event: &'a LimitEvent) -> CloudEvent<'a> {
    let LimitEvent { id, at, threshold, domain, descriptor, rule, limit, used, capacity, shadow } =
        event;
    let at = UNIX_EPOCH + Duration::from_micros(at.as_micros());
    CloudEvent {
        specversion: "1.0",
        id,
        source,
        r#type: format!("tollgate.limit.{}", threshold.name()),
        subject: descriptor,
        time: humantime::format_rfc3339_micros(at).to_string(),
        datacontenttype: "application/json",
        data: Data {
            domain,
            descriptor,
            rule,
            limit,
            used: *used,
            capacity: *capacity,
            shadow: *shadow,
        },
    }
}
