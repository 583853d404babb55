//! Dynamic metadata: which rule decided, for access logs and whoever asks "who limited me?".
//!
//! ```text
//! { domain: "edge",
//!   descriptors: [ { entries: ["api_key=acme"], rule: "api_key", client: "api_key=acme",
//!                    limits_over: ["per-key"], over_limit: true, shadow: true, degraded: true,
//!                    retry_after_ms: 1250, reason: "invalid_override" } ],
//!   metadata: { ..of the clients and rules whose descriptors are not over their limit, merged.. } }
//! ```
//! A field that would be false or empty is absent. Values that are not UTF-8 are percent-escaped, sensitive ones
//! hashed.

use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

use crate::limiter::key::SensitiveHasher;
use crate::limiter::request::{Entry, Request};
use crate::limiter::resolve::Report;
use crate::limiter::status::{Decision, Outcome, Status};
use crate::policy::{Domain, Rule};
use crate::telemetry::escape::escape;

/// The metadata of `decision`.
pub(super) fn metadata(request: &Request, decision: &Decision, hasher: &SensitiveHasher) -> Struct {
    let rules = decision.snapshot.policies.rules();
    let rule = |status: &Status| status.rule.and_then(|i| rules.get(i as usize)).map(AsRef::as_ref);
    let pairs = || request.descriptors.iter().zip(&decision.statuses);
    let mut fields = Struct::default();
    set(&mut fields, "domain", text(escape(&request.domain)));
    let domain = decision.snapshot.policies.domain(&request.domain).map(AsRef::as_ref);
    let described = pairs().map(|(d, status)| {
        let rule = rule(status);
        describe(entries(&d.entries, rule, domain, hasher), status, rule)
    });
    set(&mut fields, "descriptors", list(described.collect()));
    let mut merged = Struct::default();
    for (_, status) in pairs().filter(|(_, status)| !status.over_limit()) {
        let client = status.client.as_ref().and_then(|client| client.metadata.as_deref());
        let own = client.or_else(|| rule(status).and_then(|rule| rule.metadata.as_deref()));
        if let Some(own) = own {
            merge(&mut merged, own);
        }
    }
    if !merged.fields.is_empty() {
        set(&mut fields, "metadata", Kind::StructValue(merged));
    }
    fields
}

fn describe(entries: Vec<String>, status: &Status, rule: Option<&Rule>) -> Value {
    let mut fields = Struct::default();
    if status.client.is_some() {
        set(&mut fields, "client", text(entries.join("|")));
    }
    set(&mut fields, "entries", list(entries.into_iter().map(|e| text(e).into()).collect()));
    if let Some(rule) = rule {
        set(&mut fields, "rule", text(&rule.label));
    }
    let flags = [
        ("over_limit", status.over_limit()),
        ("shadow", status.shadow && status.failed()),
        ("degraded", status.degraded),
    ];
    for (name, _) in flags.iter().filter(|(_, holds)| *holds) {
        set(&mut fields, name, Kind::BoolValue(true));
    }
    match &status.outcome {
        Outcome::Limited(limited) if !limited.passed => {
            let failed = limited.failed.iter().map(|limit| text(title(limit)).into()).collect();
            set(&mut fields, "limits_over", list(failed));
            if let Some(retry) = limited.retry_after {
                set(&mut fields, "retry_after_ms", Kind::NumberValue(millis(retry)));
            }
        }
        Outcome::InvalidOverride => set(&mut fields, "reason", text("invalid_override")),
        Outcome::OutOfBounds => set(&mut fields, "reason", text("out_of_bounds")),
        Outcome::NoLimit | Outcome::Unlimited | Outcome::Limited(_) => {}
    }
    Kind::StructValue(fields).into()
}

/// The entries as `key=value`, escaped. Sensitive values are hashed also where no rule decided: none may match, or none
/// was looked for.
pub(crate) fn entries(
    entries: &[Entry],
    rule: Option<&Rule>,
    domain: Option<&Domain>,
    hasher: &SensitiveHasher,
) -> Vec<String> {
    let pairs = entries.iter().map(|entry| (entry.key.as_ref(), entry.value.as_ref()));
    let sensitive: Vec<bool> = match (rule, domain) {
        (Some(rule), _) => rule.path.iter().map(|path| path.sensitive).collect(),
        (None, Some(domain)) => domain.sensitive(pairs).collect(),
        (None, None) => Vec::new(),
    };
    let sensitive = sensitive.into_iter().chain(std::iter::repeat(false));
    let entry = |(entry, sensitive): (&Entry, bool)| {
        let key = escape(&entry.key);
        if sensitive {
            format!("{key}={}", hasher.hash(&entry.value))
        } else {
            format!("{key}={}", escape(&entry.value))
        }
    };
    entries.iter().zip(sensitive).map(entry).collect()
}

/// What a limit is called: its name, else its numbers.
fn title(limit: &Report) -> String {
    limit.name.as_ref().map_or_else(
        || match limit.unit_multiplier {
            1 => format!("{} per {}", limit.requests_per_unit, limit.unit.name()),
            many => format!("{} per {many} {}s", limit.requests_per_unit, limit.unit.name()),
        },
        ToString::to_string,
    )
}

/// Rounded up: a client must not come back too early.
fn millis(duration: Duration) -> f64 {
    duration.as_micros().div_ceil(1_000) as f64
}

/// Adds what `into` has not; maps are merged, of two scalars the first stays.
fn merge(into: &mut Struct, from: &serde_json::Map<String, Json>) {
    for (key, value) in from {
        match (into.fields.get_mut(key).and_then(|value| value.kind.as_mut()), value) {
            (Some(Kind::StructValue(inner)), Json::Object(more)) => merge(inner, more),
            (Some(_), _) => {}
            (None, _) => {
                into.fields.insert(key.clone(), from_json(value));
            }
        }
    }
}

pub(crate) fn from_json(json: &Json) -> Value {
    Value {
        kind: Some(match json {
            Json::Null => Kind::NullValue(0),
            Json::Bool(value) => Kind::BoolValue(*value),
            Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::MAX)),
            Json::String(value) => Kind::StringValue(value.clone()),
            Json::Array(values) => list(values.iter().map(from_json).collect()),
            Json::Object(map) => {
                let mut fields = Struct::default();
                merge(&mut fields, map);
                Kind::StructValue(fields)
            }
        }),
    }
}

fn set(fields: &mut Struct, name: &str, kind: Kind) {
    fields.fields.insert(name.to_owned(), kind.into());
}

fn text(value: impl std::fmt::Display) -> Kind {
    Kind::StringValue(value.to_string())
}

const fn list(values: Vec<Value>) -> Kind {
    Kind::ListValue(ListValue { values })
}
