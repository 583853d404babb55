//! What operators changed, in force in this process: registry records become clients, policies and modes.
//!
//! The follower of the registry hands over changes, also those made here, in the order in which they count. A record that
//! cannot be read is skipped with a log line and a metric: it must not keep the others from being in force.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::record::{self, Name, StoredMode, StoredPolicy};
use crate::control::follower;
use crate::control::layered::{Applied, Layered};
use crate::control::registry::{Entry, Record};
use crate::limiter::Shared;
use crate::limiter::mode::{Mode, ModeLayer};
use crate::limits::Client;
use crate::policy::{Compiled, Faults, Files, Warning};
use crate::telemetry::escape::escape;

/// What operators changed, as this process has followed it.
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    policies: Mutex<Layered>,
    modes: Mutex<OperatorModes>,
}

/// Modes by domain; the empty domain stands for all.
type OperatorModes = HashMap<Bytes, Mode>;

/// Changes of policies: whose, to what.
type PolicyChanges = Vec<(Arc<str>, Option<Applied>)>;

impl Mirror {
    /// A mirror that puts everything in force in `shared`, whose policies are those of `policies`.
    pub fn new(shared: Arc<Shared>, policies: Layered) -> Self {
        let (policies, modes) = (Mutex::new(policies), Mutex::default());
        Self { shared, policies, modes }
    }

    /// What every core shares.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reads what is known of policies.
    pub fn policies<T>(&self, read: impl FnOnce(&Layered) -> T) -> T {
        read(&self.policies.lock())
    }

    /// Puts other files in force beside what operators applied; with faults everything stays as it is. The version and what
    /// was compiled.
    ///
    /// # Errors
    /// Every fault of the files.
    pub fn replace_files(&self, files: Files) -> Result<(u64, Vec<Warning>), Faults> {
        let mut layered = self.policies.lock();
        let Compiled { set, warnings } = layered.replace_files(files)?;
        Ok((self.shared.policies.replace(set), warnings))
    }

    fn apply_one(&self, name: Name, found: Option<Record>, changed: &mut Changed) {
        let directory = self.shared.resolver.clients.directory();
        match (name, found) {
            (Name::Client(name), None) => directory.remove(&name),
            (Name::Client(name), Some(found)) => {
                match Client::from_record(&found.value, found.revision) {
                    Ok(client) if client.name == name => directory.put(client),
                    Ok(_) => self.unreadable(&name.record_key(), "it is another client's"),
                    Err(error) => self.unreadable(&name.record_key(), &error.to_string()),
                }
            }
            (Name::Policy(domain), None) => changed.policies.push((domain, None)),
            (Name::Policy(domain), Some(found)) => match StoredPolicy::read(&found.value) {
                Ok(stored) => {
                    let StoredPolicy { yaml, updated_at } = stored;
                    let applied =
                        Applied { yaml: yaml.into(), revision: found.revision, updated_at };
                    changed.policies.push((domain, Some(applied)));
                }
                Err(error) => self.unreadable(&record::policy_key(&domain), &error.to_string()),
            },
            (Name::Mode(domain), None) => {
                changed.modes |= self.modes.lock().remove(&domain).is_some();
            }
            (Name::Mode(domain), Some(found)) => match StoredMode::read(&found.value) {
                Ok(stored) => {
                    self.modes.lock().insert(domain, stored.mode);
                    changed.modes = true;
                }
                Err(error) => self.unreadable(&record::mode_key(&domain), &error.to_string()),
            },
        }
    }

    fn finish(&self, changed: Changed) {
        if changed.modes {
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
        if !changed.policies.is_empty() {
            let mut layered = self.policies.lock();
            let domains: Vec<_> =
                changed.policies.iter().map(|(domain, _)| Arc::clone(domain)).collect();
            if layered.apply(changed.policies) {
                for domain in &domains {
                    let standing = layered.applied().get(domain);
                    if let Some(Err(faults)) = standing.map(|standing| &standing.outcome) {
                        tracing::error!(%domain, "an applied policy is left out:\n{faults}");
                    }
                }
                let faulty = layered.applied().values().filter(|s| s.outcome.is_err()).count();
                self.shared.metrics.faulty_policies.set(i64::try_from(faulty).unwrap_or(i64::MAX));
                self.shared.policies.replace(layered.set());
            }
        }
    }

    fn unreadable(&self, key: &[u8], reason: &str) {
        self.shared.metrics.unreadable_records.inc();
        let key = escape(key);
        tracing::error!(%key, reason, "a record of the registry is skipped");
    }
}

/// # Concurrency
/// Decisions never wait for it, but for the moment in which one client is put in its place.
impl follower::Mirror for Mirror {
    fn apply(&self, entries: Vec<Entry>) {
        let mut changed = Changed::default();
        for (key, found) in entries {
            match Name::from_key(&key) {
                Some(name) => self.apply_one(name, found, &mut changed),
                None => self.unreadable(&key, "its key means nothing"),
            }
        }
        self.finish(changed);
    }

    fn retain(&self, keep: &dyn Fn(&[u8]) -> bool) {
        self.shared.resolver.clients.directory().retain(|name| keep(&name.record_key()));
        let gone = |domain: &&Arc<str>| !keep(&record::policy_key(domain));
        let policies = self.policies(|layered| {
            let gone = layered.applied().keys().filter(gone);
            gone.map(|domain| (Arc::clone(domain), None)).collect()
        });
        let mut modes = self.modes.lock();
        let before = modes.len();
        modes.retain(|domain, _| keep(&record::mode_key(domain)));
        let changed = Changed { policies, modes: modes.len() < before };
        drop(modes);
        self.finish(changed);
    }
}

/// What has to be put together again after some changes.
#[derive(Default)]
struct Changed {
    policies: PolicyChanges,
    modes: bool,
}
