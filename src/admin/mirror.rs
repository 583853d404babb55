//! What operators changed, in force in this process: registry records become clients, policies and modes.
//!
//! Whoever follows the registry hands its changes to [`Mirror::apply`], and so does a change made here, before it is
//! acknowledged. A change older than what is there does nothing, so both may come in any order. A record that cannot be read is
//! skipped with a log line and a metric: it must not keep the others from being in force.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::record::{self, Name, StoredMode, StoredPolicy};
use crate::clients::Client;
use crate::limiter::Shared;
use crate::limiter::mode::{Mode, ModeLayer};
use crate::policy::{Applied, Compiled, Faults, Files, Layered, Warning};
use crate::registry::{Entry, Record};
use crate::telemetry::escape::escape;

/// What operators changed, as this process has followed it.
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    revision: AtomicU64,
    policies: Mutex<Layered>,
    modes: Mutex<OperatorModes>,
}

/// Modes by domain, each with the revision that set it; the empty domain stands for all.
type OperatorModes = HashMap<Bytes, (Mode, u64)>;

/// Changes of policies: whose, at which revision, to what.
type PolicyChanges = Vec<(Arc<str>, u64, Option<Applied>)>;

impl Mirror {
    /// A mirror that puts everything in force in `shared`, whose policies are those of `policies`.
    pub fn new(shared: Arc<Shared>, policies: Layered) -> Self {
        let (policies, modes) = (Mutex::new(policies), Mutex::default());
        Self { shared, revision: AtomicU64::new(0), policies, modes }
    }

    /// The latest revision up to which every change was followed.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// What every core shares.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reads what is known of policies.
    pub fn policies<T>(&self, read: impl FnOnce(&Layered) -> T) -> T {
        read(&self.policies.lock())
    }

    /// Puts changes in force that were followed, oldest first; `revision` is that after the last of them.
    ///
    /// # Concurrency
    /// Decisions never wait for it, but for the moment in which one client is put in its place.
    pub fn apply(&self, revision: u64, entries: Vec<Entry>) {
        self.apply_own(revision, entries);
        self.revision.fetch_max(revision, Ordering::Relaxed);
    }

    /// Puts the changes of a write of this process in force, whether or not all before them were followed.
    pub fn apply_own(&self, revision: u64, entries: Vec<Entry>) {
        let mut changed = Changed::default();
        for (key, found) in entries {
            match Name::from_key(&key) {
                Some(name) => self.apply_one(name, revision, found, &mut changed),
                None => self.unreadable(&key, "its key means nothing"),
            }
        }
        self.finish(changed);
    }

    /// Forgets everything of `revision` or before that `keep` does not keep by its key: what was deleted while nobody
    /// followed.
    pub fn retain(&self, revision: u64, keep: impl Fn(&[u8]) -> bool) {
        let directory = self.shared.resolver.clients.directory();
        directory.retain(revision, |name| keep(&name.record_key()));
        let gone = |domain: &Arc<str>| !keep(&record::policy_key(domain));
        let mut changed = Changed {
            policies: self.policies(|layered| {
                let gone = layered.applied().keys().filter(|domain| gone(domain));
                gone.map(|domain| (Arc::clone(domain), revision, None)).collect()
            }),
            modes: false,
        };
        self.modes.lock().retain(|domain, (_, at)| {
            let stays = *at > revision || keep(&record::mode_key(domain));
            changed.modes |= !stays;
            stays
        });
        self.finish(changed);
        self.revision.fetch_max(revision, Ordering::Relaxed);
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

    fn apply_one(&self, name: Name, revision: u64, found: Option<Record>, changed: &mut Changed) {
        let directory = self.shared.resolver.clients.directory();
        match (name, found) {
            (Name::Client(name), None) => directory.remove(&name, revision),
            (Name::Client(name), Some(found)) => {
                match Client::from_record(&found.value, found.revision) {
                    Ok(client) if client.name == name => directory.put(client),
                    Ok(_) => self.unreadable(&name.record_key(), "it is another client's"),
                    Err(error) => self.unreadable(&name.record_key(), &error.to_string()),
                }
            }
            (Name::Policy(domain), None) => changed.policies.push((domain, revision, None)),
            (Name::Policy(domain), Some(found)) => match StoredPolicy::read(&found.value) {
                Ok(stored) => {
                    let StoredPolicy { yaml, updated_at } = stored;
                    let applied =
                        Applied { yaml: yaml.into(), revision: found.revision, updated_at };
                    changed.policies.push((domain, found.revision, Some(applied)));
                }
                Err(error) => self.unreadable(&record::policy_key(&domain), &error.to_string()),
            },
            (Name::Mode(domain), found) => self.apply_mode(domain, revision, found, changed),
        }
    }

    fn apply_mode(
        &self,
        domain: Bytes,
        revision: u64,
        found: Option<Record>,
        changed: &mut Changed,
    ) {
        let mut modes = self.modes.lock();
        let there = modes.get(&domain).map(|(_, at)| *at);
        let Some(found) = found else {
            if there.is_some_and(|there| there <= revision) {
                modes.remove(&domain);
                changed.modes = true;
            }
            return;
        };
        match StoredMode::read(&found.value) {
            Ok(_) if there.is_some_and(|there| there >= found.revision) => {}
            Ok(stored) => {
                modes.insert(domain, (stored.mode, found.revision));
                changed.modes = true;
            }
            Err(error) => self.unreadable(&record::mode_key(&domain), &error.to_string()),
        }
    }

    fn finish(&self, changed: Changed) {
        if changed.modes {
            let modes = self.modes.lock();
            let mut layer = ModeLayer::default();
            for (domain, (mode, _)) in modes.iter() {
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
                changed.policies.iter().map(|(domain, _, _)| Arc::clone(domain)).collect();
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

/// What has to be put together again after some changes.
#[derive(Default)]
struct Changed {
    policies: PolicyChanges,
    modes: bool,
}
