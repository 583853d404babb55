//! Scales: the part of its limits to which a rule is turned, and their records in the registry.
//!
//! A rule has up to two: one that an operator has set, and one of the controller of its adaptive
//! limits. That of the operator goes before the other.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::micros;
use super::record::BadRecord;
use crate::domain::{Timestamp, WHOLE};

/// The largest scale: ten times the limits.
pub const MAX_PER_MILLE: u16 = 10 * WHOLE;

/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 256;

/// The author of a scale.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ScaleSource {
    /// An operator.
    Operator,
    /// The controller of adaptive limits.
    Controller,
}

impl ScaleSource {
    /// Both, first the one that goes before the other.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Controller];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "scale/",
            Self::Controller => "adaptive/",
        }
    }
}

/// The name of a scale: its rule and its author.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScaleKey {
    /// The author.
    pub source: ScaleSource,
    /// The domain of the rule.
    pub domain: Arc<str>,
    /// The rule, as metrics name it.
    pub rule: Arc<str>,
}

impl ScaleKey {
    /// The key of the scale's record. The length tells the domain from the rule: both may have
    /// slashes.
    pub fn record_key(&self) -> Bytes {
        let Self { source, domain, rule } = self;
        format!("{}{}/{domain}/{rule}", source.prefix(), domain.len()).into()
    }

    /// Parses the key of a record; the inverse of [`record_key`](Self::record_key).
    pub fn from_record_key(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let of = |source: ScaleSource| Some((source, text.strip_prefix(source.prefix())?));
        let (source, named) = ScaleSource::ALL.into_iter().find_map(of)?;
        let (length, named) = named.split_once('/')?;
        let (domain, rule) = named.split_at_checked(length.parse().ok()?)?;
        let rule = rule.strip_prefix('/')?;
        let key = Self { source, domain: domain.into(), rule: rule.into() };
        // Other digits of the same number would be a second key of one scale.
        (key.record_key() == text).then_some(key)
    }
}

/// A scale, and its JSON form in the registry.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Scale {
    /// Thousandths of the limits, from 1 to [`MAX_PER_MILLE`].
    pub per_mille: u16,
    /// The time at which it ends; none: when it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::option")]
    pub expires_at: Option<Timestamp>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// It is shown and not in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// The time of its last change.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
    /// The revision of the registry that wrote it.
    #[serde(skip)]
    pub revision: u64,
}

impl Scale {
    /// From a record's value.
    pub fn from_record(value: &[u8], revision: u64) -> Result<Self, BadRecord> {
        Ok(Self { revision, ..serde_json::from_slice(value)? })
    }

    /// As a record's value.
    pub fn to_record(&self) -> Result<Bytes, BadRecord> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// True if it has ended at `now`.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_no_two_name_one_scale() {
        for (domain, rule) in
            [("d", "user"), ("a/b", "x/y=z"), ("", ""), ("a", "b/x/y=z"), ("é", "k")]
        {
            for source in ScaleSource::ALL {
                let key = ScaleKey { source, domain: domain.into(), rule: rule.into() };
                assert_eq!(ScaleKey::from_record_key(&key.record_key()), Some(key));
            }
        }
        for bad in
            ["scale/", "scale/1", "scale/1/dxr", "scale/01/d/r", "scale/9/d/r", "scale/1/é/r"]
        {
            assert_eq!(ScaleKey::from_record_key(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn record_is_short_and_read_back() {
        let updated_at = Timestamp::from_micros(7);
        let scale = Scale {
            per_mille: 500,
            expires_at: None,
            reason: String::new(),
            shadow: false,
            updated_at,
            revision: 3,
        };
        assert_eq!(scale.to_record().unwrap(), r#"{"per_mille":500,"updated_at":7}"#);
        let ends = Timestamp::from_micros(9);
        let long = Scale { expires_at: Some(ends), reason: "r".to_owned(), shadow: true, ..scale };
        assert_eq!(Scale::from_record(&long.to_record().unwrap(), 3).unwrap(), long);
        assert!(!long.has_ended(Timestamp::from_micros(8)) && long.has_ended(ends));
    }
}
