//! Clients: single descriptors with limits of their own, which go before those of the rule they match.
//!
//! * [`Client`]: what an operator says of one; also how it is written to the registry.
//! * [`directory`]: all of them in memory, found by descriptor and listed in order.

pub mod directory;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::{Algorithm, Charge, Limit, LimitError, Unit};
use crate::policy::{AlgorithmName, OnStoreFailure};

/// Which descriptor of which domain a client is.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ClientName {
    /// The domain.
    pub domain: Arc<str>,
    /// The whole descriptor, in order: (key, value).
    pub entries: Box<[(Box<str>, Box<str>)]>,
}

/// What an operator says of a client.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Client {
    /// Which descriptor it is.
    #[serde(flatten)]
    pub name: ClientName,
    /// All enforced, at least one; an unlimited one is alone.
    pub limits: Box<[ClientLimit]>,
    /// None: as the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
    /// None: as the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<bool>,
    /// None: as the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// For the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Box<BTreeMap<String, String>>>,
    /// Microseconds since 1970 from which it is as if it were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Microseconds since 1970 of its last change.
    pub updated_at: u64,
    /// The revision of its last change, its etag; known from the record, not written into it.
    #[serde(skip)]
    pub revision: u64,
}

/// One limit of a client. What is none is as the rule has it, else as the defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClientLimit {
    /// Reported with the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// None: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// The numbers of a limit that counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rate {
    /// Requests per period; 0 blocks.
    pub requests_per_unit: u32,
    /// The unit of the period, by name.
    #[serde(with = "unit_name")]
    pub unit: Unit,
    /// How many units the period has, at least 1.
    pub unit_multiplier: u32,
    /// The algorithm, by name.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "algorithm_name")]
    pub algorithm: Option<AlgorithmName>,
    /// Of a token bucket; none: as many as requests per unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Of a sliding window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Whether hits are charged in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always: Option<bool>,
    /// Of a token bucket that always charges; none: ten times the burst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_debt: Option<u64>,
    /// What to answer while the store does not: allow, or deny.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "failure_name")]
    pub on_store_failure: Option<OnStoreFailure>,
}

/// What a rate takes from the rule it goes before.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The rule's limit; none: no rule matches, or it counts nothing.
    pub limit: Option<Limit>,
    /// Where no rule says it.
    pub default_algorithm: AlgorithmName,
}

impl Rate {
    /// The limit it makes, with what it leaves open taken from `model`.
    ///
    /// # Errors
    /// Numbers that no limit can be made of.
    pub fn limit(&self, model: &Model) -> Result<Limit, LimitError> {
        let period = self.unit.period(self.unit_multiplier).ok_or(LimitError::Period)?;
        let theirs = model.limit.map(|limit| limit.algorithm());
        let name = self.algorithm.unwrap_or(match theirs {
            Some(Algorithm::TokenBucket { .. }) => AlgorithmName::TokenBucket,
            Some(Algorithm::SlidingWindow { .. }) => AlgorithmName::SlidingWindow,
            Some(Algorithm::FixedWindow) => AlgorithmName::FixedWindow,
            None => model.default_algorithm,
        });
        let burst = self.burst.unwrap_or(self.requests_per_unit);
        let algorithm = match name {
            AlgorithmName::TokenBucket => Algorithm::TokenBucket { burst },
            AlgorithmName::FixedWindow => Algorithm::FixedWindow,
            AlgorithmName::SlidingWindow => Algorithm::SlidingWindow {
                slots: self.slots.unwrap_or(match theirs {
                    Some(Algorithm::SlidingWindow { slots }) => slots,
                    _ => Algorithm::DEFAULT_SLOTS,
                }),
            },
        };
        let always = model.limit.is_some_and(|limit| limit.always_charges());
        let charge = if self.always.unwrap_or(always) {
            Charge::Always { max_debt: Some(self.max_debt.unwrap_or(u64::from(burst) * 10)) }
        } else {
            Charge::Admitted
        };
        Limit::new(self.requests_per_unit, period, algorithm, charge)
    }
}

impl ClientName {
    /// The key of its record: ordered as the names are, and different names have different keys.
    pub fn record_key(&self) -> Bytes {
        let mut key = RECORD_PREFIX.to_vec();
        write_part(&mut key, &self.domain);
        for (name, value) in &self.entries {
            write_part(&mut key, name);
            write_part(&mut key, value);
        }
        key.into()
    }

    /// The name whose record has this key.
    pub fn from_record_key(key: &[u8]) -> Option<Self> {
        let mut rest = key.strip_prefix(RECORD_PREFIX)?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (part, after) = read_part(rest)?;
            parts.push(String::from_utf8(part).ok()?.into_boxed_str());
            rest = after;
        }
        let mut parts = parts.into_iter();
        let domain = parts.next()?.into();
        let mut entries = Vec::new();
        while let Some(name) = parts.next() {
            entries.push((name, parts.next()?));
        }
        Some(Self { domain, entries: entries.into() })
    }
}

/// A part ends in two zero bytes; a zero byte within it is followed by 255, which sorts after that end.
fn write_part(key: &mut Vec<u8>, part: &str) {
    for byte in part.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

/// The first part, and what comes after it.
fn read_part(key: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut part = Vec::new();
    let mut rest = key;
    loop {
        match rest {
            [0, 0, after @ ..] => return Some((part, after)),
            [0, 0xff, after @ ..] => {
                part.push(0);
                rest = after;
            }
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                part.push(*byte);
                rest = after;
            }
        }
    }
}

/// What the keys of all clients' records begin with.
pub const RECORD_PREFIX: &[u8] = b"client/";

/// Bytes in the registry that are no client.
#[derive(Debug, thiserror::Error)]
#[error("a client's record cannot be read")]
pub struct BadRecord(#[from] serde_json::Error);

impl Client {
    /// As it is written to the registry.
    ///
    /// # Errors
    /// None that is known of; serde could refuse.
    pub fn to_record(&self) -> Result<Bytes, BadRecord> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// From what was written, at `revision`.
    ///
    /// # Errors
    /// What is no client.
    pub fn from_record(value: &[u8], revision: u64) -> Result<Self, BadRecord> {
        Ok(Self { revision, ..serde_json::from_slice(value)? })
    }

    /// Whether it is as if it were deleted at `now`, in microseconds since 1970.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

mod unit_name {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::domain::Unit;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(unit: &Unit, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(unit.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Unit, D::Error> {
        let name = String::deserialize(from)?;
        Unit::from_name(&name).ok_or_else(|| D::Error::custom(format!("unknown unit {name:?}")))
    }
}

mod algorithm_name {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::policy::AlgorithmName;

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        name: &Option<AlgorithmName>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match name {
            None => to.serialize_none(),
            Some(name) => to.serialize_str(name.name()),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<AlgorithmName>, D::Error> {
        String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
    }
}

mod failure_name {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::policy::OnStoreFailure;

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        mode: &Option<OnStoreFailure>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match mode {
            None => to.serialize_none(),
            Some(OnStoreFailure::Allow) => to.serialize_str("allow"),
            Some(OnStoreFailure::Deny) => to.serialize_str("deny"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<OnStoreFailure>, D::Error> {
        String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
    }
}
