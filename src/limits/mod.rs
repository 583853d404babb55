//! Clients: single descriptors whose limits override those of the rule they match.
//!
//! * [`Client`]: the override of one client, and its JSON form in the registry.
//! * [`name`]: the descriptor of a client, and the key of its record.
//! * [`limit`]: the limits of a client.
//! * [`plan`]: limits that many clients share by name.
//! * [`scale`]: the part of its limits to which a rule is turned.
//! * [`directory`]: all clients in memory, indexed by descriptor and by name.
//! * [`plans`]: the plans of a directory, by the numbers that its clients have.

pub mod directory;
pub mod limit;
pub(crate) mod micros;
pub mod name;
pub mod plan;
pub mod plans;
mod record;
pub mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::limit::{ClientLimit, Limits, Model, Rate};
pub use self::name::{ClientName, Entries};
pub use self::plan::{Membership, Plan, PlanKey, PlanName};
pub use self::record::BadRecord;
pub use self::scale::{Scale, ScaleKey, ScaleSource};
use crate::domain::Timestamp;

/// A client and its override.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Client {
    /// The descriptor that identifies the client.
    #[serde(flatten)]
    pub name: ClientName,
    /// The limits, all enforced; none without a plan would be no limit. An unlimited one is the
    /// only one. Without limits the record has no field: a version that knows no plans must not
    /// take the client for an unlimited one.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The plan whose limits apply beside those above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Arc<Membership>>,
    /// Shadow mode; `None` takes the value of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
    /// Membership of the quota descriptors; `None` takes the value of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<bool>,
    /// Response metadata; `None` takes the value of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// Labels for the operator, without effect on decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Box<BTreeMap<String, String>>>,
    /// The time from which the client counts as deleted.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::option")]
    pub expires_at: Option<Timestamp>,
    /// The time of the last change.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
    /// The revision of the last change, used as the etag. A property of the record; not part of its
    /// JSON.
    #[serde(skip)]
    pub revision: u64,
}

impl Client {
    /// Encodes the client as JSON for the registry.
    ///
    /// # Errors
    /// None in practice; serde's signature permits one.
    pub fn to_record(&self) -> Result<Bytes, BadRecord> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// Decodes a record that was written at `revision`.
    ///
    /// # Errors
    /// Fails if `value` is not a client.
    pub fn from_record(value: &[u8], revision: u64) -> Result<Self, BadRecord> {
        Ok(Self { revision, ..serde_json::from_slice(value)? })
    }

    /// Returns true if an operator says the same of both: all but the time and the revision of the
    /// last change.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let Self { name, limits, plan, shadow, quota, metadata, labels, expires_at, .. } = self;
        *name == other.name
            && *limits == other.limits
            && *plan == other.plan
            && *shadow == other.shadow
            && *quota == other.quota
            && *metadata == other.metadata
            && *labels == other.labels
            && *expires_at == other.expires_at
    }

    /// True if the client counts as deleted at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest double, not one beside it: otherwise an upsert of the same client would change
    /// it.
    #[test]
    fn numbers_of_metadata_are_read_back_to_the_bit() {
        let record = r#"{"domain":"d","entries":[["k","v"]],"limits":[{}],
            "metadata":{"x":1.0715660391465825e-75,"y":0.1},"updated_at":1}"#;
        let client = Client::from_record(record.as_bytes(), 1).unwrap();
        let read = Client::from_record(&client.to_record().unwrap(), 1).unwrap();
        assert_eq!(read, client);
        let x: f64 = "1.0715660391465825e-75".parse().unwrap();
        assert_eq!(client.metadata.unwrap()["x"], x);
    }
}
