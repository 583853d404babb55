//! Plans: limits that many clients of a domain share by name, and the plan that a client has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::limit::Limits;
use super::micros;
use super::record::BadRecord;
use crate::domain::Timestamp;

/// The prefix of the keys of all plans' records.
pub const RECORD_PREFIX: &[u8] = b"plan/";

/// The longest name of a plan, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// The name of a plan: its domain, and its name among the plans of the domain.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PlanKey {
    /// The domain.
    pub domain: Arc<str>,
    /// The name, for which [`is_name`] holds.
    pub name: Arc<str>,
}

impl PlanKey {
    /// The key of the plan's record.
    pub fn record_key(&self) -> Bytes {
        [RECORD_PREFIX, self.domain.as_bytes(), b"/", self.name.as_bytes()].concat().into()
    }

    /// Parses the key of a record; the inverse of [`record_key`](Self::record_key). A name has no
    /// slash, a domain may.
    pub fn from_record_key(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key.strip_prefix(RECORD_PREFIX)?).ok()?;
        let (domain, name) = text.rsplit_once('/')?;
        is_name(name).then(|| Self { domain: domain.into(), name: name.into() })
    }
}

/// True for 1 to [`MAX_NAME_BYTES`] ASCII letters, digits, `.`, `_` and `-`.
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(fits)
}

/// A plan, and its JSON form in the registry.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// The domain of its clients.
    pub domain: Arc<str>,
    /// Its name among the plans of the domain.
    pub name: Arc<str>,
    /// The limits, at least one, all enforced for each client by itself.
    pub limits: Limits,
    /// Response metadata of its clients; `None` takes the value of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// Labels for the operator, without effect on decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Box<BTreeMap<String, String>>>,
    /// The time of the last change.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
    /// The revision of the last change, used as the etag. A property of the record; not part of its
    /// JSON.
    #[serde(skip)]
    pub revision: u64,
}

impl Plan {
    /// Its name.
    pub fn key(&self) -> PlanKey {
        PlanKey { domain: Arc::clone(&self.domain), name: Arc::clone(&self.name) }
    }

    /// Encodes the plan as JSON for the registry.
    ///
    /// # Errors
    /// None in practice; serde's signature permits one.
    pub fn to_record(&self) -> Result<Bytes, BadRecord> {
        Ok(serde_json::to_vec(self)?.into())
    }

    /// Decodes a record that was written at `revision`.
    ///
    /// # Errors
    /// Fails if `value` is not a plan.
    pub fn from_record(value: &[u8], revision: u64) -> Result<Self, BadRecord> {
        Ok(Self { revision, ..serde_json::from_slice(value)? })
    }

    /// Returns true if an operator says the same of both: all but the time and the revision of the
    /// last change.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let Self { domain, name, limits, metadata, labels, .. } = self;
        *domain == other.domain
            && *name == other.name
            && *limits == other.limits
            && *metadata == other.metadata
            && *labels == other.labels
    }
}

/// The name of a client's plan, with the number that the client's directory has for it.
#[derive(Clone)]
pub struct PlanName {
    pub(super) text: Arc<str>,
    /// Below the length of the directory's table, or [`Self::UNNUMBERED`].
    pub(super) number: u32,
}

impl PlanName {
    const UNNUMBERED: u32 = u32::MAX;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for PlanName {
    fn from(text: &str) -> Self {
        Self { text: text.into(), number: Self::UNNUMBERED }
    }
}

/// By name: a number means something in its directory alone.
impl PartialEq for PlanName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl Serialize for PlanName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PlanName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(from)?.as_str().into())
    }
}

/// The plan that a client has, and the end of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Membership {
    /// The plan.
    pub name: PlanName,
    /// The time from which the client has the plan `then`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::option")]
    pub ends_at: Option<Timestamp>,
    /// The plan from `ends_at` on; `None`: no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<PlanName>,
}

impl Membership {
    /// A membership without an end.
    pub fn of(name: PlanName) -> Self {
        Self { name, ends_at: None, then: None }
    }

    /// True if the client has the plan `then` at `now`.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }

    /// The plan at `now`.
    pub fn at(&self, now: Timestamp) -> Option<&PlanName> {
        if self.has_ended(now) { self.then.as_ref() } else { Some(&self.name) }
    }

    /// The plans that it names, now or later.
    pub fn names(&self) -> impl Iterator<Item = &PlanName> {
        std::iter::once(&self.name).chain(&self.then)
    }

    /// The same as it is to be read at `now`: without a part that has ended. None: no plan.
    pub fn current(self: &Arc<Self>, now: Timestamp) -> Option<Arc<Self>> {
        if !self.has_ended(now) {
            return Some(Arc::clone(self));
        }
        self.then.clone().map(|then| Arc::new(Self::of(then)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Client;

    #[test]
    fn keys_are_read_back_and_others_refused() {
        let key = PlanKey { domain: "a/b".into(), name: "gold-2.x_y".into() };
        assert_eq!(key.record_key(), "plan/a/b/gold-2.x_y");
        assert_eq!(PlanKey::from_record_key(&key.record_key()), Some(key));
        let long = format!("plan/d/{}", "n".repeat(MAX_NAME_BYTES + 1));
        for bad in ["plan/d", "plan/d/", "plan/d/a b", "plan/d/\u{e9}", "policy/d/n", &long] {
            assert_eq!(PlanKey::from_record_key(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn record_of_a_client_has_its_plan_and_no_limits_that_it_has_not() {
        let record = concat!(
            r#"{"domain":"d","entries":[["k","v"]],"#,
            r#""plan":{"name":"gold","ends_at":9,"then":"silver"},"updated_at":1}"#
        );
        let client = Client::from_record(record.as_bytes(), 1).unwrap();
        assert_eq!(client.to_record().unwrap(), record);
        let plan = client.plan.unwrap();
        let at = |micros| plan.at(Timestamp::from_micros(micros)).map(PlanName::as_str);
        assert_eq!((at(8), at(9)), (Some("gold"), Some("silver")));
        let current = |micros| plan.current(Timestamp::from_micros(micros)).unwrap();
        assert_eq!(current(8), plan);
        assert_eq!(*current(9), Membership::of("silver".into()));
        let open = Membership { then: None, ..Membership::clone(&plan) };
        assert_eq!(Arc::new(open).current(Timestamp::from_micros(9)), None);
    }
}
