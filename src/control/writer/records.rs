//! Records of the registry, put in force: clients, plans, scales and modes at once, policies by a
//! queue, old versions of policies for lists.
//!
//! A record that cannot be read is skipped with a log line and a metric: it does not keep others
//! from being in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Writer;
use crate::control::layered::{DomainChanges, NewText, Since};
use crate::control::record::{self, Name, StoredPolicy};
use crate::control::registry::{Record, Update};
use crate::limits::{Client, ClientName, Plan, PlanKey};
use crate::telemetry::escape::escape;

/// Changes of policies by the registry, in their order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    changes: DomainChanges,
    /// The domains of which the registry has a policy, queued changes included.
    domains: BTreeSet<Arc<str>>,
    /// The number of changes that have come.
    queued: u64,
    /// The number of those in force.
    pub(super) settled: u64,
}

impl Queue {
    fn push(&mut self, domain: Arc<str>, text: Option<NewText>) {
        match text {
            Some(_) => self.domains.insert(Arc::clone(&domain)),
            None => self.domains.remove(&domain),
        };
        self.changes.push((domain, text));
        self.queued += 1;
    }

    /// Takes the changes that are left, with the number of all changes up to them.
    pub(super) fn take(&mut self) -> (DomainChanges, u64) {
        (std::mem::take(&mut self.changes), self.queued)
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.settled == self.queued
    }
}

impl Writer {
    pub(super) fn apply_records(&self, entries: Vec<Update>) {
        let mut modes_changed = false;
        for (key, record) in entries {
            match Name::from_key(&key) {
                Some(Name::Client(name)) => self.apply_client(&name, record),
                Some(Name::Plan(key)) => self.apply_plan(&key, record),
                Some(Name::Policy(domain)) => self.apply_policy(domain, record),
                Some(Name::Version { domain, revision }) => {
                    self.apply_version(domain, revision, record.as_ref());
                }
                Some(Name::Scale(key)) => self.apply_scale(key, record),
                Some(Name::Mode(domain)) => modes_changed |= self.apply_mode(domain, record),
                // Read by whoever signs, or controls.
                Some(Name::HoldKeys | Name::AdaptiveLock) => {}
                None => self.unreadable(&key, "its key means nothing"),
            }
        }
        if modes_changed {
            self.publish_modes();
        }
    }

    fn apply_client(&self, name: &ClientName, record: Option<Record>) {
        let Some(record) = record else {
            self.directory.remove(name);
            self.batch.lock().clients[1] += 1;
            return;
        };
        match Client::from_record(&record.value, record.revision) {
            Ok(client) if client.name == *name => {
                self.directory.put(client);
                self.batch.lock().clients[0] += 1;
            }
            Ok(_) => self.unreadable(&name.record_key(), "it is another client's"),
            Err(error) => self.unreadable(&name.record_key(), &error.to_string()),
        }
    }

    fn apply_plan(&self, key: &PlanKey, record: Option<Record>) {
        let what = match record {
            None => {
                self.directory.plans().remove(key);
                "deleted"
            }
            Some(record) => match Plan::from_record(&record.value, record.revision) {
                Ok(plan) if plan.key() == *key => {
                    self.directory.plans().put(plan);
                    "applied"
                }
                Ok(_) => return self.unreadable(&key.record_key(), "it is another plan's"),
                Err(error) => return self.unreadable(&key.record_key(), &error.to_string()),
            },
        };
        let title = format!("{}/{}", escape(key.domain.as_bytes()), key.name);
        self.batch.lock().plans.insert(title, what);
    }

    fn apply_policy(&self, domain: Arc<str>, record: Option<Record>) {
        let text = match record {
            None => None,
            Some(record) => match StoredPolicy::read(&record.value) {
                Ok(StoredPolicy { yaml, updated_at }) => {
                    let since = Since { version: record.revision, at: updated_at };
                    Some(NewText { yaml: yaml.into(), since })
                }
                Err(error) => {
                    return self.unreadable(&record::policy_key(&domain), &error.to_string());
                }
            },
        };
        self.queue_policy(domain, text);
    }

    fn queue_policy(&self, domain: Arc<str>, text: Option<NewText>) {
        let what = if text.is_some() { "applied" } else { "deleted" };
        self.batch.lock().policies.insert(escape(domain.as_bytes()).to_string(), what);
        self.queue.lock().push(domain, text);
    }

    pub(super) fn retain_records(&self, keep: &dyn Fn(&[u8]) -> bool) {
        let before = self.directory.len();
        self.directory.retain(|name| keep(&name.record_key()));
        self.batch.lock().clients[1] += before.saturating_sub(self.directory.len());
        self.directory.plans().retain(|key| keep(&key.record_key()));
        let domains = self.queue.lock().domains.clone();
        for domain in domains.into_iter().filter(|domain| !keep(&record::policy_key(domain))) {
            self.queue_policy(domain, None);
        }
        self.retain_scales(keep);
        self.retain_versions(keep);
        let modes: Vec<Bytes> = self.modes.lock().stored.keys().cloned().collect();
        let gone = modes.into_iter().filter(|domain| !keep(&record::mode_key(domain)));
        let mut changed = false;
        for domain in gone {
            changed |= self.apply_mode(domain, None);
        }
        if changed {
            self.publish_modes();
        }
    }

    pub(super) fn unreadable(&self, key: &[u8], reason: &str) {
        self.shared.metrics.registry.unreadable_records.inc();
        let key = escape(key);
        tracing::error!(%key, reason, "a record of the registry is skipped");
    }
}
