//! Messages of the protocol as the domain has them, and back: times, limits, entries, metadata.

use std::num::NonZeroU32;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Number, Value as Json};

use crate::domain::{Algorithm, Charge, Limit, Timestamp, Unit};
use crate::edge::pb::tollgate::v1 as pb;
use crate::limiter::explain::CounterState;
use crate::limiter::mode::Mode;
use crate::limiter::report::Report;
use crate::limits::plans::Listed;
use crate::limits::{self, Client, ClientLimit, Entries, Plan, PlanName, Rate};
use crate::policy::{AlgorithmName, ChargeName, OnStoreFailure};

/// The latest time that a timestamp may hold: the end of the year 9999.
const LATEST_SECONDS: i64 = 253_402_300_799;

/// A point in time as the protocol has it.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_micros();
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(LATEST_SECONDS);
    prost_types::Timestamp { seconds, nanos: (micros % 1_000_000 * 1_000) as i32 }
}

/// A timestamp of the protocol, rounded down to microseconds; none: before 1970, after 9999, or
/// malformed.
pub(super) fn timestamp_from_pb(at: &prost_types::Timestamp) -> Option<Timestamp> {
    let nanos = u64::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let seconds = u64::try_from(at.seconds).ok()?;
    let micros = || seconds * 1_000_000 + nanos / 1_000;
    (at.seconds <= LATEST_SECONDS).then(|| Timestamp::from_micros(micros()))
}

/// A client as answers show it.
pub(super) fn client(client: &Client) -> pb::Client {
    let plan = client.plan.as_deref();
    let name = |name: Option<&PlanName>| name.map(PlanName::as_str).unwrap_or_default().to_owned();
    pb::Client {
        domain: client.name.domain.to_string(),
        entries: entries(&client.name.entries),
        limits: client.limits.iter().map(client_limit).collect(),
        shadow_mode: client.shadow,
        quota_mode: client.quota,
        metadata: client.metadata.as_deref().map(metadata),
        labels: client.labels.as_deref().cloned().unwrap_or_default(),
        expires_at: client.expires_at.map(timestamp),
        etag: etag(client.revision),
        updated_at: Some(timestamp(client.updated_at)),
        plan: name(plan.map(|plan| &plan.name)),
        plan_expires_at: plan.and_then(|plan| plan.ends_at).map(timestamp),
        plan_then: name(plan.and_then(|plan| plan.then.as_ref())),
    }
}

/// A plan of a list as answers show it.
pub(super) fn listed_plan(Listed { plan, clients }: &Listed) -> pb::Plan {
    self::plan(plan, *clients)
}

/// A plan that so many clients name, as answers show it.
pub(super) fn plan(plan: &Plan, clients: usize) -> pb::Plan {
    pb::Plan {
        domain: plan.domain.to_string(),
        name: plan.name.to_string(),
        limits: plan.limits.iter().map(client_limit).collect(),
        metadata: plan.metadata.as_deref().map(metadata),
        labels: plan.labels.as_deref().cloned().unwrap_or_default(),
        etag: etag(plan.revision),
        updated_at: Some(timestamp(plan.updated_at)),
        clients: Some(clients as u64),
    }
}

fn metadata(map: &Map<String, Json>) -> Struct {
    Struct { fields: map.iter().map(|(key, value)| (key.clone(), from_json(value))).collect() }
}

/// The entries of a descriptor, hashes marked.
pub(super) fn entries(entries: &Entries) -> Vec<pb::Entry> {
    let entry = |(key, value): (&str, limits::name::Value<'_>)| pb::Entry {
        key: key.to_owned(),
        value: value.text().to_owned(),
        hashed: value.hashed,
    };
    entries.texts().map(entry).collect()
}

/// The etag of what was changed last at `revision`; empty for what was never stored.
pub(super) fn etag(revision: u64) -> String {
    if revision == 0 { String::new() } else { revision.to_string() }
}

fn client_limit(limit: &ClientLimit) -> pb::Limit {
    let name = limit.name.as_deref().unwrap_or_default().to_owned();
    let Some(rate) = &limit.rate else {
        return pb::Limit { name, unlimited: true, ..pb::Limit::default() };
    };
    pb::Limit {
        requests_per_unit: Some(rate.requests_per_unit),
        unit: unit(rate.unit).into(),
        unit_multiplier: multiplier(rate.unit_multiplier),
        unlimited: false,
        name,
        algorithm: algorithm(rate).into(),
        burst: rate.burst.map_or(0, NonZeroU32::get),
        slots: rate.slots.map_or(0, NonZeroU32::get),
        charge: charge(rate).into(),
        max_debt: rate.max_debt,
        on_store_failure: on_store_failure(rate.on_store_failure).into(),
    }
}

/// The numbers and the name of a limit.
pub(super) fn reported_limit(report: &Report) -> pb::Limit {
    pb::Limit {
        requests_per_unit: Some(report.requests_per_unit),
        unit: unit(report.unit).into(),
        unit_multiplier: multiplier(report.unit_multiplier),
        name: report.name.as_deref().unwrap_or_default().to_owned(),
        ..pb::Limit::default()
    }
}

/// The limit of a counter with everything that was left open filled in.
pub(super) fn counter_limit(counter: &CounterState) -> pb::Limit {
    let mut shown = pb::Limit {
        on_store_failure: on_store_failure(counter.traits.on_store_failure).into(),
        ..reported_limit(&counter.report)
    };
    let name = match Limit::algorithm(&counter.limit) {
        Algorithm::TokenBucket { burst } => {
            shown.burst = burst;
            pb::Algorithm::TokenBucket
        }
        Algorithm::SlidingWindow { slots } => {
            shown.slots = slots;
            pb::Algorithm::SlidingWindow
        }
        Algorithm::FixedWindow => pb::Algorithm::FixedWindow,
        Algorithm::Concurrency => pb::Algorithm::Concurrency,
    };
    shown.algorithm = name.into();
    shown.charge = match counter.limit.charge() {
        Charge::Admitted => pb::Charge::Admitted.into(),
        Charge::Always { max_debt } => {
            shown.max_debt = max_debt.filter(|_| name == pb::Algorithm::TokenBucket);
            pb::Charge::Always.into()
        }
        Charge::Settled { max_debt } => {
            shown.max_debt = max_debt.filter(|_| name == pb::Algorithm::TokenBucket);
            pb::Charge::Settled.into()
        }
        Charge::Held { max_debt } => {
            shown.max_debt = max_debt.filter(|_| name == pb::Algorithm::TokenBucket);
            pb::Charge::Held.into()
        }
    };
    shown
}

/// A multiplier of one goes without saying.
const fn multiplier(multiplier: u32) -> u32 {
    if multiplier == 1 { 0 } else { multiplier }
}

const fn unit(unit: Unit) -> pb::Unit {
    match unit {
        Unit::Second => pb::Unit::Second,
        Unit::Minute => pb::Unit::Minute,
        Unit::Hour => pb::Unit::Hour,
        Unit::Day => pb::Unit::Day,
        Unit::Week => pb::Unit::Week,
        Unit::Month => pb::Unit::Month,
        Unit::Year => pb::Unit::Year,
    }
}

/// The unit of the protocol; none where it is left open.
pub(super) const fn unit_from_pb(unit: pb::Unit) -> Option<Unit> {
    Some(match unit {
        pb::Unit::Unspecified => return None,
        pb::Unit::Second => Unit::Second,
        pb::Unit::Minute => Unit::Minute,
        pb::Unit::Hour => Unit::Hour,
        pb::Unit::Day => Unit::Day,
        pb::Unit::Week => Unit::Week,
        pb::Unit::Month => Unit::Month,
        pb::Unit::Year => Unit::Year,
    })
}

const fn algorithm(rate: &Rate) -> pb::Algorithm {
    match rate.algorithm {
        None => pb::Algorithm::Unspecified,
        Some(AlgorithmName::SlidingWindow) => pb::Algorithm::SlidingWindow,
        Some(AlgorithmName::TokenBucket) => pb::Algorithm::TokenBucket,
        Some(AlgorithmName::FixedWindow) => pb::Algorithm::FixedWindow,
    }
}

/// The algorithm of the protocol; none where it is left open.
pub(super) const fn algorithm_from_pb(algorithm: pb::Algorithm) -> Option<AlgorithmName> {
    match algorithm {
        // Only policies have CONCURRENCY.
        pb::Algorithm::Unspecified | pb::Algorithm::Concurrency => None,
        pb::Algorithm::SlidingWindow => Some(AlgorithmName::SlidingWindow),
        pb::Algorithm::TokenBucket => Some(AlgorithmName::TokenBucket),
        pb::Algorithm::FixedWindow => Some(AlgorithmName::FixedWindow),
    }
}

const fn charge(rate: &Rate) -> pb::Charge {
    match rate.charge() {
        None => pb::Charge::Unspecified,
        Some(ChargeName::Admitted) => pb::Charge::Admitted,
        Some(ChargeName::Always) => pb::Charge::Always,
        Some(ChargeName::Settled) => pb::Charge::Settled,
    }
}

const fn on_store_failure(mode: Option<OnStoreFailure>) -> pb::OnStoreFailure {
    match mode {
        None => pb::OnStoreFailure::Unspecified,
        Some(OnStoreFailure::Local) => pb::OnStoreFailure::Local,
        Some(OnStoreFailure::Allow) => pb::OnStoreFailure::Allow,
        Some(OnStoreFailure::Deny) => pb::OnStoreFailure::Deny,
        Some(OnStoreFailure::Error) => pb::OnStoreFailure::Error,
    }
}

/// The mode as answers show it.
pub(super) const fn mode(mode: Mode) -> pb::Mode {
    match mode {
        Mode::Enforce => pb::Mode::Enforce,
        Mode::Shadow => pb::Mode::Shadow,
        Mode::Off => pb::Mode::Off,
    }
}

/// The mode of the protocol; none where it is left open.
pub(super) const fn mode_from_pb(mode: pb::Mode) -> Option<Mode> {
    match mode {
        pb::Mode::Unspecified => None,
        pb::Mode::Enforce => Some(Mode::Enforce),
        pb::Mode::Shadow => Some(Mode::Shadow),
        pb::Mode::Off => Some(Mode::Off),
    }
}

/// Metadata as JSON; none when a number is none that JSON has.
pub fn to_json(fields: Struct) -> Option<Map<String, Json>> {
    fields.fields.into_iter().map(|(key, value)| Some((key, value_to_json(value)?))).collect()
}

/// True if `fields` has a list or mapping more than `levels` levels deep, itself counted.
pub(super) fn is_below(fields: &Struct, levels: usize) -> bool {
    levels == 0 || fields.fields.values().any(|value| value_is_below(value, levels - 1))
}

fn value_is_below(value: &Value, levels: usize) -> bool {
    match &value.kind {
        Some(Kind::ListValue(list)) => {
            levels == 0 || list.values.iter().any(|value| value_is_below(value, levels - 1))
        }
        Some(Kind::StructValue(fields)) => is_below(fields, levels),
        _ => false,
    }
}

fn value_to_json(value: Value) -> Option<Json> {
    Some(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::NumberValue(value)) => Json::Number(Number::from_f64(value)?),
        Some(Kind::StringValue(value)) => Json::String(value),
        Some(Kind::ListValue(list)) => {
            Json::Array(list.values.into_iter().map(value_to_json).collect::<Option<_>>()?)
        }
        Some(Kind::StructValue(fields)) => Json::Object(to_json(fields)?),
    })
}

/// A value as protobuf has it.
pub fn from_json(json: &Json) -> Value {
    Value {
        kind: Some(match json {
            Json::Null => Kind::NullValue(0),
            Json::Bool(value) => Kind::BoolValue(*value),
            Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::MAX)),
            Json::String(value) => Kind::StringValue(value.clone()),
            Json::Array(values) => {
                Kind::ListValue(ListValue { values: values.iter().map(from_json).collect() })
            }
            Json::Object(map) => Kind::StructValue(Struct {
                fields: map.iter().map(|(key, value)| (key.clone(), from_json(value))).collect(),
            }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back_and_bad_ones_refused() {
        for at in [0, 1, 999_999, 1_700_000_000_123_456] {
            let at = Timestamp::from_micros(at);
            assert_eq!(timestamp_from_pb(&timestamp(at)), Some(at));
        }
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (0, 1_000_000_000), (LATEST_SECONDS + 1, 0), (i64::MAX, 0)]
        {
            let bad = prost_types::Timestamp { seconds, nanos };
            assert_eq!(timestamp_from_pb(&bad), None, "{seconds} {nanos}");
        }
    }

    #[test]
    fn metadata_is_read_back_but_for_numbers_json_does_not_have() {
        let json: Json = serde_json::json!({"a": [1.5, null, {"b": true}], "c": "d"});
        let Some(Kind::StructValue(fields)) = from_json(&json).kind else { panic!("no struct") };
        assert_eq!(Json::Object(to_json(fields).unwrap()), json);
        let nan = Value { kind: Some(Kind::NumberValue(f64::NAN)) };
        assert_eq!(to_json(Struct { fields: [("a".to_owned(), nan)].into() }), None);
    }
}
