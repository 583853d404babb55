//! The versions of policies that the registry keeps beside those in force: which there are. Their
//! texts stay in the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Writer;
use crate::control::record::{self, StoredPolicy};
use crate::control::registry::Record;
use crate::domain::Timestamp;

/// The versions of every domain, by revision.
pub(super) type Versions = BTreeMap<Arc<str>, BTreeMap<u64, Version>>;

/// A version of a policy, without its text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version {
    /// The time at which it was applied.
    pub updated_at: Timestamp,
    /// The length of its text.
    pub bytes: usize,
}

impl Writer {
    /// The versions of the policy of `domain` that the registry keeps, but for the one in force, by
    /// revision.
    pub fn versions(&self, domain: &str) -> BTreeMap<u64, Version> {
        self.versions.lock().get(domain).cloned().unwrap_or_default()
    }

    pub(super) fn apply_version(&self, domain: Arc<str>, revision: u64, record: Option<&Record>) {
        let read = record.map(|record| StoredPolicy::read(&record.value)).transpose();
        let stored = match read {
            Ok(stored) => stored,
            Err(error) => {
                let key = record::version_key(&domain, revision);
                return self.unreadable(&key, &error.to_string());
            }
        };
        let mut versions = self.versions.lock();
        let Some(StoredPolicy { yaml, updated_at }) = stored else {
            if let Some(of_domain) = versions.get_mut(&domain) {
                of_domain.remove(&revision);
                if of_domain.is_empty() {
                    versions.remove(&domain);
                }
            }
            return;
        };
        let version = Version { updated_at, bytes: yaml.len() };
        versions.entry(domain).or_default().insert(revision, version);
    }

    pub(super) fn retain_versions(&self, keep: &dyn Fn(&[u8]) -> bool) {
        self.versions.lock().retain(|domain, versions| {
            versions.retain(|revision, _| keep(&record::version_key(domain, *revision)));
            !versions.is_empty()
        });
    }
}
