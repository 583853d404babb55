//! Records of the registry, put in force: clients and modes at once, policies by a queue.
//!
//! A record that cannot be read is skipped with a log line and a metric: it does not keep others from
//! being in force.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::Writer;
use crate::control::layered::{DomainChanges, NewText, Since};
use crate::control::record::{self, Name, StoredMode, StoredPolicy};
use crate::control::registry::{Record, Update};
use crate::limiter::mode::{Mode, ModeLayer};
use crate::limits::{Client, ClientName};
use crate::settings::Word as _;
use crate::telemetry::escape::escape;

/// Modes by domain; the empty domain stands for all.
pub(super) type OperatorModes = HashMap<Bytes, Mode>;

/// The word for the mode of an operator that was taken back.
const BY_SETTINGS: &str = "by settings";

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
                Some(Name::Policy(domain)) => self.apply_policy(domain, record),
                Some(Name::Mode(domain)) => modes_changed |= self.apply_mode(domain, record),
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

    /// Returns whether modes have changed.
    fn apply_mode(&self, domain: Bytes, record: Option<Record>) -> bool {
        let Some(record) = record else {
            self.note_mode(&domain, BY_SETTINGS);
            return self.modes.lock().remove(&domain).is_some();
        };
        match StoredMode::read(&record.value) {
            Ok(stored) => {
                self.note_mode(&domain, stored.mode.word());
                self.modes.lock().insert(domain, stored.mode);
                true
            }
            Err(error) => {
                self.unreadable(&record::mode_key(&domain), &error.to_string());
                false
            }
        }
    }

    fn note_mode(&self, domain: &[u8], mode: &'static str) {
        let domain = if domain.is_empty() { "all".to_owned() } else { escape(domain).to_string() };
        self.batch.lock().modes.insert(domain, mode);
    }

    fn publish_modes(&self) {
        let modes = self.modes.lock();
        let mut layer = ModeLayer::default();
        for (domain, mode) in modes.iter() {
            if domain.is_empty() {
                layer.global = Some(*mode);
            } else {
                layer.domains.insert(domain.clone(), *mode);
            }
        }
        // Under the lock, so that of two changes the later one is in force.
        self.shared.modes.set_operator(&layer);
    }

    pub(super) fn retain_records(&self, keep: &dyn Fn(&[u8]) -> bool) {
        let before = self.directory.len();
        self.directory.retain(|name| keep(&name.record_key()));
        self.batch.lock().clients[1] += before.saturating_sub(self.directory.len());
        let domains = self.queue.lock().domains.clone();
        for domain in domains.into_iter().filter(|domain| !keep(&record::policy_key(domain))) {
            self.queue_policy(domain, None);
        }
        let modes: Vec<Bytes> = self.modes.lock().keys().cloned().collect();
        let mut changed = false;
        for domain in modes.into_iter().filter(|domain| !keep(&record::mode_key(domain))) {
            changed |= self.apply_mode(domain, None);
        }
        if changed {
            self.publish_modes();
        }
    }

    fn unreadable(&self, key: &[u8], reason: &str) {
        self.shared.metrics.unreadable_records.inc();
        let key = escape(key);
        tracing::error!(%key, reason, "a record of the registry is skipped");
    }
}
