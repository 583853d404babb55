//! Clients, plans and policies as lines of JSON, with every field: the format of `export` and
//! `import`.
//!
//! Names are those of `proto/tollgate/v1`, so the object of a client fits into a call of grpcurl.
//! Fields that are unset are left out.

use std::collections::BTreeMap;

use prost_types::Struct;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tollgate::edge::admin::{metadata_from_json, metadata_to_json, pb};

use super::time;

/// A line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// A client.
    Client(Client),
    /// A plan.
    Plan(Plan),
    /// The policy of a domain.
    Policy(Policy),
}

/// A client.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    domain: String,
    entries: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<Limit>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    plan: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan_expires_at: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    plan_then: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shadow_mode: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota_mode: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Written for the reader; an import goes by what the server has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    etag: String,
    /// As `etag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    key: String,
    #[serde(default)]
    value: String,
    /// The value is a hash.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hashed: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Limit {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_unit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    unit_multiplier: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unlimited: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    burst: u32,
    #[serde(skip_serializing_if = "is_zero")]
    slots: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_debt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_store_failure: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A plan.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    domain: String,
    name: String,
    limits: Vec<Limit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// As [`Client::etag`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    etag: String,
    /// As [`Client::etag`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

/// The policy of a domain, as RPCs applied it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) domain: String,
    pub(super) yaml: String,
    /// As [`Client::etag`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    etag: String,
    /// As [`Client::etag`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

impl From<pb::Policy> for Policy {
    fn from(policy: pb::Policy) -> Self {
        let updated_at = policy.updated_at.as_ref().map(time::text);
        Self { domain: policy.domain, yaml: policy.yaml, etag: policy.etag, updated_at }
    }
}

impl From<pb::Client> for Client {
    fn from(client: pb::Client) -> Self {
        let metadata = client.metadata.map(metadata_to_json);
        Self {
            domain: client.domain,
            entries: client.entries.into_iter().map(Entry::from).collect(),
            limits: client.limits.iter().map(Limit::from).collect(),
            plan: client.plan,
            plan_expires_at: client.plan_expires_at.as_ref().map(time::text),
            plan_then: client.plan_then,
            shadow_mode: client.shadow_mode,
            quota_mode: client.quota_mode,
            // The server stores none that JSON does not have.
            metadata: metadata.map(Option::unwrap_or_default),
            labels: client.labels,
            expires_at: client.expires_at.as_ref().map(time::text),
            etag: client.etag,
            updated_at: client.updated_at.as_ref().map(time::text),
        }
    }
}

impl From<pb::Plan> for Plan {
    fn from(plan: pb::Plan) -> Self {
        Self {
            domain: plan.domain,
            name: plan.name,
            limits: plan.limits.iter().map(Limit::from).collect(),
            metadata: plan.metadata.map(|map| metadata_to_json(map).unwrap_or_default()),
            labels: plan.labels,
            etag: plan.etag,
            updated_at: plan.updated_at.as_ref().map(time::text),
        }
    }
}

impl From<pb::Entry> for Entry {
    fn from(pb::Entry { key, value, hashed }: pb::Entry) -> Self {
        Self { key, value, hashed }
    }
}

impl From<&pb::Limit> for Limit {
    fn from(limit: &pb::Limit) -> Self {
        let word = |set: bool, name: &str| set.then(|| name.to_owned());
        Self {
            requests_per_unit: (!limit.unlimited).then(|| limit.requests_per_unit()),
            unit: word(limit.unit != 0, limit.unit().as_str_name()),
            unit_multiplier: limit.unit_multiplier,
            unlimited: limit.unlimited,
            name: limit.name.clone(),
            algorithm: word(limit.algorithm != 0, limit.algorithm().as_str_name()),
            burst: limit.burst,
            slots: limit.slots,
            charge: word(limit.charge != 0, limit.charge().as_str_name()),
            max_debt: limit.max_debt,
            on_store_failure: word(
                limit.on_store_failure != 0,
                limit.on_store_failure().as_str_name(),
            ),
        }
    }
}

impl TryFrom<Client> for pb::Client {
    type Error = String;

    /// The client to upsert: without etag and time of change, and written as the server does.
    fn try_from(client: Client) -> Result<Self, String> {
        let entry = |Entry { key, value, hashed }| pb::Entry { key, value, hashed };
        Ok(Self {
            domain: client.domain,
            entries: client.entries.into_iter().map(entry).collect(),
            limits: client.limits.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            shadow_mode: client.shadow_mode,
            quota_mode: client.quota_mode,
            metadata: client.metadata.as_ref().map(metadata),
            labels: client.labels,
            plan: client.plan,
            plan_expires_at: client.plan_expires_at.as_deref().map(time::parse).transpose()?,
            plan_then: client.plan_then,
            expires_at: client.expires_at.as_deref().map(time::parse).transpose()?,
            ..Self::default()
        })
    }
}

impl TryFrom<Plan> for pb::Plan {
    type Error = String;

    /// The plan to upsert: without etag and time of change.
    fn try_from(plan: Plan) -> Result<Self, String> {
        Ok(Self {
            domain: plan.domain,
            name: plan.name,
            limits: plan.limits.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            metadata: plan.metadata.as_ref().map(metadata),
            labels: plan.labels,
            ..Self::default()
        })
    }
}

fn metadata(map: &Map<String, Value>) -> Struct {
    let fields = map.iter().map(|(key, value)| (key.clone(), metadata_from_json(value)));
    Struct { fields: fields.collect() }
}

impl TryFrom<Limit> for pb::Limit {
    type Error = String;

    fn try_from(limit: Limit) -> Result<Self, String> {
        if limit.requests_per_unit.is_none() && !limit.unlimited {
            // In the protocol that is 0, which blocks.
            return Err("a limit has neither requests_per_unit nor unlimited".to_owned());
        }
        Ok(Self {
            requests_per_unit: limit.requests_per_unit,
            unit: number("unit", limit.unit, pb::Unit::from_str_name)?,
            unit_multiplier: if limit.unit_multiplier == 1 { 0 } else { limit.unit_multiplier },
            unlimited: limit.unlimited,
            name: limit.name,
            algorithm: number("algorithm", limit.algorithm, pb::Algorithm::from_str_name)?,
            burst: limit.burst,
            slots: limit.slots,
            charge: number("charge", limit.charge, pb::Charge::from_str_name)?,
            max_debt: limit.max_debt,
            on_store_failure: number(
                "on_store_failure",
                limit.on_store_failure,
                pb::OnStoreFailure::from_str_name,
            )?,
        })
    }
}

/// The number of a word; 0 where it is left out.
fn number<E: Into<i32>>(
    field: &str,
    word: Option<String>,
    known: fn(&str) -> Option<E>,
) -> Result<i32, String> {
    let Some(word) = word else { return Ok(0) };
    known(&word).map(Into::into).ok_or_else(|| format!("{field} has no value {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"client":{"domain":"d","entries":[{"key":"k","value":"v"}],"limits":[{"requests_per_unit":0,"unit":"MINUTE","unit_multiplier":5,"name":"n","algorithm":"TOKEN_BUCKET","burst":7,"charge":"ALWAYS","max_debt":0,"on_store_failure":"DENY"},{"requests_per_unit":1,"unit":"DAY","algorithm":"SLIDING_WINDOW","slots":3}],"plan":"gold","plan_expires_at":"2029-01-01T00:00:00Z","plan_then":"silver","shadow_mode":false,"quota_mode":true,"metadata":{"a":[1.5,null,{"b":true}]},"labels":{"l":"m"},"expires_at":"2030-01-01T00:00:00Z"}}"#;

    fn client(text: &str) -> Result<pb::Client, String> {
        match serde_json::from_str(text).map_err(|error| error.to_string())? {
            Line::Client(client) => client.try_into(),
            Line::Policy(_) | Line::Plan(_) => panic!("no client"),
        }
    }

    #[test]
    fn every_field_is_read_back() {
        let read = client(FULL).unwrap();
        assert_eq!(serde_json::to_string(&Line::Client(read.into())).unwrap(), FULL);
    }

    #[test]
    fn lines_that_could_mean_something_other_are_refused() {
        for (from, to, part) in [
            (r#""unit":"DAY""#, r#""unit":"day""#, "unit has no value"),
            (r#""requests_per_unit":1,"#, "", "neither requests_per_unit nor unlimited"),
            (r#""slots":3"#, r#""slot":3"#, "unknown field `slot`"),
            ("2030-01-01T00:00:00Z", "soon", "2030-01-01"),
            (r#""entries""#, r#""entrys""#, "entrys"),
            (r#"{"client""#, r#"{"customer""#, "customer"),
        ] {
            let error = client(&FULL.replace(from, to)).unwrap_err();
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}
