//! The only writer of what the limiter reads: policies, limits of clients, scales, operators'
//! modes.
//!
//! Feeds bring policies ([`Writer::replace`]) and the follower of the registry brings records
//! ([`follower::Mirror`]). A feed whose policies are refused keeps those it had. Policies are
//! compiled and published one set after the other, on threads that may block; nothing else waits
//! for them.
//!
//! * `records`: records of the registry, put in force.
//! * `scales`: parts of limits to which rules are turned.
//! * `modes`: modes that operators set.
//! * `versions`: versions of policies that the registry keeps.

mod modes;
mod records;
mod scales;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use self::modes::OperatorModes;
use self::records::Queue;
pub use self::versions::Version;
use self::versions::Versions;
use super::layered::{Checked, Layered, Origin, Refusal, Replaced, Since, Standing, check_text};
use super::report::{self, Batch};
use crate::control::follower;
use crate::control::registry::Update;
use crate::limiter::Shared;
use crate::limits::directory::Directory;
use crate::policy::{Faults, Files, PolicySet};
use crate::telemetry::traces::{Trace, Traces};

/// Puts in force what feeds and the registry bring.
///
/// # Concurrency
/// Decisions and readers never wait for it, except for the moment in which one client is replaced.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    /// The policies of every feed, as they are in force.
    layered: ArcSwap<Layered>,
    /// Held while policies are compiled and published, only by threads that may block.
    publishing: Mutex<()>,
    /// Changes of policies by the registry that are not in force yet.
    queue: Mutex<Queue>,
    modes: Mutex<OperatorModes>,
    scales: Mutex<scales::Stored>,
    versions: Mutex<Versions>,
    /// The records that the next line of the log reports.
    batch: Mutex<Batch>,
    /// None: reloads are not traced.
    traces: Option<Arc<Traces>>,
}

impl Writer {
    /// A writer of `shared`, whose policies are those of `layered`.
    pub fn new(shared: Arc<Shared>, layered: Layered) -> Self {
        let writer = Self {
            directory: Arc::clone(shared.resolver.clients.directory()),
            shared,
            layered: ArcSwap::from_pointee(layered),
            publishing: Mutex::default(),
            queue: Mutex::default(),
            modes: Mutex::default(),
            scales: Mutex::default(),
            versions: Mutex::default(),
            batch: Mutex::default(),
            traces: None,
        };
        writer.note_reload(true);
        writer.note_size();
        writer
    }

    /// The same with a span for each reload.
    #[must_use]
    pub fn with_traces(self, traces: Option<Arc<Traces>>) -> Self {
        Self { traces, ..self }
    }

    /// Everything that cores share.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The policies of every feed, as they are in force.
    pub fn layered(&self) -> Arc<Layered> {
        self.layered.load_full()
    }

    /// Checks the text of one policy by itself, on a thread that may block; `name` is its name in
    /// faults.
    ///
    /// # Errors
    /// The outer one when the compiler failed, the inner one with every fault.
    pub async fn check(
        &self,
        name: String,
        yaml: String,
    ) -> Result<Result<Checked, Faults>, tokio::task::JoinError> {
        let layered = self.layered();
        spawn_blocking(move || check_text(&name, &yaml, layered.options())).await
    }

    /// Puts `files` in force in the place of everything that `origin` had, and reports it. The
    /// policies in force stay when these are refused.
    ///
    /// # Errors
    /// The reason why they are refused.
    ///
    /// # Cancel safety
    /// Dropped, it still puts the files in force.
    pub async fn replace(self: &Arc<Self>, origin: Origin, files: Files) -> Result<(), Refusal> {
        let trace = self.traces.as_ref().map(|traces| traces.begin_internal("reload policies"));
        let writer = Arc::clone(self);
        let replaced = spawn_blocking(move || writer.replace_now(origin, &files)).await;
        let replaced = replaced.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())));
        self.note_reload(replaced.is_ok());
        if let Some(trace) = trace {
            self.describe_reload(trace, origin, replaced.is_ok());
        }
        let metrics = &self.shared.metrics;
        if replaced.is_ok() {
            metrics.policies.reloads_ok.inc()
        } else {
            metrics.policies.reloads_failed.inc()
        };
        if let Err(refusal) = &replaced {
            let feed = origin.name();
            match refusal {
                Refusal::Faults(faults) => tracing::error!(
                    feed,
                    "the policies stay as they are; mend these faults:\n{faults}"
                ),
                other => tracing::error!(feed, "the policies stay as they are: {other}"),
            }
        }
        replaced
    }

    /// Ends the span of a reload, with what is in force after it.
    fn describe_reload(&self, mut trace: Trace, origin: Origin, successful: bool) {
        let snapshot = self.shared.policies.current();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        trace.set("tollgate.feed", origin.name());
        trace.set("tollgate.policy_version", i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        trace.set("tollgate.domains", count(snapshot.policies.domains().len()));
        trace.set("tollgate.rules", count(snapshot.policies.rules().len()));
        if !successful {
            trace.fail("the policies were refused");
        }
    }

    fn replace_now(&self, origin: Origin, files: &Files) -> Result<(), Refusal> {
        let _turn = self.publishing.lock();
        let mut layered = Layered::clone(&self.layered.load());
        let Replaced { set, warnings, difference } =
            layered.replace(origin, files, self.next_version())?;
        report::warnings(&warnings);
        let version = self.publish(layered, set, true);
        let rules = self.shared.policies.current().policies.rules().len();
        report::reloaded(origin.name(), version, rules, &difference);
        Ok(())
    }

    /// Puts in force what the registry changed of policies. Returns at once when an earlier call
    /// has done it.
    fn publish_queued(&self) {
        let _turn = self.publishing.lock();
        let (changes, taken) = self.queue.lock().take();
        if !changes.is_empty() {
            let mut layered = Layered::clone(&self.layered.load());
            let changed = layered.change(Origin::Registry, changes);
            if !changed.is_empty() {
                for domain in &changed {
                    report_standing(&layered, domain);
                }
                let set = layered.set();
                self.publish(layered, set, false);
            }
        }
        self.queue.lock().settled = taken;
    }

    /// Publishes `set`, which is that of `layered`, and of a feed if `fed`. The caller holds
    /// `publishing`.
    fn publish(&self, layered: Layered, set: PolicySet, fed: bool) -> u64 {
        let faulty = layered.offers(Origin::Registry).filter(|(_, o)| o.outcome.is_err()).count();
        self.shared.metrics.policies.faulty.set(i64::try_from(faulty).unwrap_or(i64::MAX));
        let complete = fed && layered.awaits().is_none();
        let version = self.shared.policies.replace(set, complete);
        self.layered.store(Arc::new(layered));
        self.note_size();
        version
    }

    /// The version that is published next.
    fn next_version(&self) -> Since {
        let version = self.shared.policies.current().version + 1;
        Since { version, at: self.shared.resolver.clients.now() }
    }

    fn note_reload(&self, successful: bool) {
        let metrics = &self.shared.metrics;
        metrics.policies.last_reload_successful.set(successful.into());
        let now = Duration::from_micros(self.shared.resolver.clients.now().as_micros()).as_secs();
        metrics.policies.last_reload_timestamp.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    fn note_size(&self) {
        let (metrics, snapshot) = (&self.shared.metrics, self.shared.policies.current());
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.policies.rules.set(count(snapshot.policies.rules().len()));
        metrics.policies.domains.set(count(snapshot.policies.domains().len()));
    }
}

/// Logs why a policy of the registry is not in force.
fn report_standing(layered: &Layered, domain: &str) {
    for (origin, _, standing) in layered.standings(domain) {
        match standing {
            Standing::LeftOut(faults) => {
                tracing::error!(%domain, "an applied policy is left out:\n{faults}");
            }
            Standing::ShadowedBy(above) if origin == Origin::Registry => {
                let by = above.name();
                tracing::warn!(%domain, by, "an applied policy is shadowed by another feed");
            }
            _ => {}
        }
    }
}

/// # Concurrency
/// Clients, plans and modes are in force when `apply` returns, policies when `settle` does.
impl follower::Mirror for Writer {
    fn apply(&self, entries: Vec<Update>) {
        self.apply_records(entries);
    }

    fn retain(&self, keep: &dyn Fn(&[u8]) -> bool) {
        self.retain_records(keep);
    }

    async fn settle(self: &Arc<Self>, revision: u64) {
        if !self.queue.lock().is_settled() {
            let writer = Arc::clone(self);
            if let Err(error) = spawn_blocking(move || writer.publish_queued()).await {
                tracing::error!(%error, "the policies stay as they are: compiling them failed");
            }
        }
        self.batch.lock().flush(revision);
    }
}
