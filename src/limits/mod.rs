//! Clients: single descriptors with limits of their own, which go before those of the rule they match.
//!
//! * [`Client`]: what an operator says of one; also how it is written to the registry.
//! * [`name`]: which descriptor it is; the key of its record.
//! * [`limit`]: its limits.
//! * [`directory`]: all of them in memory, found by descriptor and listed in order.

pub mod directory;
pub mod limit;
pub mod name;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::limit::{ClientLimit, Limits, Model, Rate};
pub use self::name::{ClientName, Entries};

/// What an operator says of a client.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Client {
    /// Which descriptor it is.
    #[serde(flatten)]
    pub name: ClientName,
    /// All enforced, at least one; an unlimited one is alone.
    pub limits: Limits,
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
    pub expires_at: Option<NonZeroU64>,
    /// Microseconds since 1970 of its last change.
    pub updated_at: u64,
    /// The revision of its last change, its etag; known from the record, not written into it.
    #[serde(skip)]
    pub revision: u64,
}

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
        self.expires_at.is_some_and(|at| at.get() <= now)
    }
}
