//! Keys and values of the registry's records. Those of clients, plans and scales are in
//! [`crate::limits`].
//!
//! | key | value, JSON |
//! |---|---|
//! | `client/...` | [`crate::limits::Client`] |
//! | `plan/<domain>/<name>` | [`crate::limits::Plan`] |
//! | `scale/<bytes of domain>/<domain>/<rule>` | [`crate::limits::Scale`] of an operator |
//! | `adaptive/<bytes of domain>/<domain>/<rule>` | [`crate::limits::Scale`] of a controller |
//! | `policy/<domain>` | [`StoredPolicy`] |
//! | `version/<domain>/<revision>`, 16 hexadecimal digits | [`StoredPolicy`]: one that was in force |
//! | `mode/<domain>`, `mode/` for all | [`StoredMode`] |
//! | `adaptive_lock` | see [`adaptive`](super::adaptive) |
//! | `hold_keys` | see [`hold_keys`](super::hold_keys) |

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::limiter::mode::Mode;
use crate::limits::{ClientName, PlanKey, ScaleKey, micros};

const POLICY: &[u8] = b"policy/";
const MODE: &[u8] = b"mode/";
const VERSION: &[u8] = b"version/";

/// The key of the record of [`hold_keys`](super::hold_keys).
pub const HOLD_KEYS: &[u8] = b"hold_keys";

/// The key of the record of the replica that controls, see [`adaptive`](super::adaptive).
pub const ADAPTIVE_LOCK: &[u8] = b"adaptive_lock";

/// The subject of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Name {
    /// A client.
    Client(ClientName),
    /// A plan.
    Plan(PlanKey),
    /// A scale.
    Scale(ScaleKey),
    /// The policy of a domain.
    Policy(Arc<str>),
    /// An earlier policy of a domain.
    Version {
        /// The domain.
        domain: Arc<str>,
        /// The revision that applied it.
        revision: u64,
    },
    /// The mode of a domain; empty: of all.
    Mode(Bytes),
    /// The keys that sign handles of holds.
    HoldKeys,
    /// The lock of the replica that controls rules that adapt.
    AdaptiveLock,
}

impl Name {
    /// The subject of the record of `key`; none: the key has no meaning here.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        if key == HOLD_KEYS {
            return Some(Self::HoldKeys);
        }
        if key == ADAPTIVE_LOCK {
            return Some(Self::AdaptiveLock);
        }
        if let Some(domain) = key.strip_prefix(POLICY) {
            return Some(Self::Policy(std::str::from_utf8(domain).ok()?.into()));
        }
        if let Some(domain) = key.strip_prefix(MODE) {
            return Some(Self::Mode(Bytes::copy_from_slice(domain)));
        }
        if let Some(version) = key.strip_prefix(VERSION) {
            let (domain, digits) = version.split_last_chunk::<DIGITS>()?;
            let domain = std::str::from_utf8(domain.strip_suffix(b"/")?).ok()?.into();
            let revision = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            // Other digits of the same number would be a second key of one version.
            let is_own = *digits == *format!("{revision:016x}").as_bytes();
            return is_own.then_some(Self::Version { domain, revision });
        }
        if let Some(scale) = ScaleKey::from_record_key(key) {
            return Some(Self::Scale(scale));
        }
        if let Some(plan) = PlanKey::from_record_key(key) {
            return Some(Self::Plan(plan));
        }
        ClientName::from_record_key(key).map(Self::Client)
    }
}

/// The digits of a revision in a key.
const DIGITS: usize = 16;

/// The key of the policy of `domain` that `revision` applied, once it is no longer in force.
pub fn version_key(domain: &str, revision: u64) -> Bytes {
    [VERSION, domain.as_bytes(), format!("/{revision:016x}").as_bytes()].concat().into()
}

/// The key of the policy of `domain`.
pub fn policy_key(domain: &str) -> Bytes {
    [POLICY, domain.as_bytes()].concat().into()
}

/// The key of the mode of `domain`; empty: of all.
pub fn mode_key(domain: &[u8]) -> Bytes {
    [MODE, domain].concat().into()
}

/// A record that is not what its key says.
#[derive(Debug, thiserror::Error)]
#[error("the record cannot be read: {0}")]
pub struct BadRecord(#[from] serde_json::Error);

/// A policy as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoredPolicy {
    /// Its text.
    pub yaml: String,
    /// The time at which it was applied.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
}

impl StoredPolicy {
    /// From a record's value.
    pub fn read(value: &[u8]) -> Result<Self, BadRecord> {
        Ok(serde_json::from_slice(value)?)
    }

    /// As a record's value.
    pub fn write(&self) -> Result<Bytes, BadRecord> {
        Ok(serde_json::to_vec(self)?.into())
    }
}

/// A mode as it is kept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoredMode {
    /// The mode, by name.
    #[serde(with = "mode_name")]
    pub mode: Mode,
    /// The time at which it was set.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
}

impl StoredMode {
    /// From a record's value.
    pub fn read(value: &[u8]) -> Result<Self, BadRecord> {
        Ok(serde_json::from_slice(value)?)
    }

    /// As a record's value.
    pub fn write(&self) -> Result<Bytes, BadRecord> {
        Ok(serde_json::to_vec(self)?.into())
    }
}

mod mode_name {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::limiter::mode::Mode;
    use crate::settings::Word;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(mode.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        let name = String::deserialize(from)?;
        Mode::from_word(&name).ok_or_else(|| D::Error::custom(format!("unknown mode {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_read_back() {
        let client =
            ClientName { domain: "d".into(), entries: [("key", "value")].into_iter().collect() };
        let plan = PlanKey { domain: "d/e".into(), name: "gold".into() };
        for (key, name) in [
            (client.record_key(), Name::Client(client.clone())),
            (plan.record_key(), Name::Plan(plan.clone())),
            (policy_key("d/e"), Name::Policy("d/e".into())),
            (version_key("d/e", 7), Name::Version { domain: "d/e".into(), revision: 7 }),
            (version_key("", u64::MAX), Name::Version { domain: "".into(), revision: u64::MAX }),
            (mode_key(b""), Name::Mode(Bytes::new())),
            (mode_key(b"d\xff"), Name::Mode(Bytes::from_static(b"d\xff"))),
        ] {
            assert_eq!(Name::from_key(&key), Some(name));
        }
        for key in [
            &b"other/x"[..],
            b"",
            b"policy/\xff",
            b"client/x",
            b"plan/x",
            b"version/d/00000000000000FF",
            b"version/d/+00000000000000f",
        ] {
            assert_eq!(Name::from_key(key), None, "{key:?}");
        }
        let updated_at = Timestamp::from_micros(7);
        let policy = StoredPolicy { yaml: "domain: d\n".to_owned(), updated_at };
        assert_eq!(policy.write().unwrap(), r#"{"yaml":"domain: d\n","updated_at":7}"#);
        assert_eq!(StoredPolicy::read(&policy.write().unwrap()).unwrap(), policy);
        for mode in [Mode::Enforce, Mode::Shadow, Mode::Off] {
            let stored = StoredMode { mode, updated_at };
            assert_eq!(StoredMode::read(&stored.write().unwrap()).unwrap(), stored);
        }
        assert!(StoredMode::read(br#"{"mode":"loud","updated_at":1}"#).is_err());
    }
}
