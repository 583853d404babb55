//! The layer that always has an answer: what the store leaves open is decided by the rule's failure
//! mode.
//!
//! * `allow` and `deny` count nothing; neither does `error`, by which the caller decides.
//! * `local` counts: this process decides by its share of the limit ([`shares`]), one of as many as
//!   there are replicas ([`replicas`]).

pub mod replicas;
pub mod shares;
mod untold;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::shares::Shares;
use crate::domain::{Claim, Commit, Group, Hits, Key, Verdict};
use crate::limiter::ask::{Ask, Ruling, Traits};
use crate::policy::OnStoreFailure;
use crate::settings::{Reader, SOME_TIME, section};
use crate::store::{Answer, Deadline, LimitStore, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::sharded::ShardedCounter;
use crate::telemetry::traces::StoreCall;

section! {
    /// Decisions and the store that counts.
    pub struct StoreSettings in "store" {
        /// Time to decide. A caller's shorter deadline takes precedence.
        deadline: Duration = "10ms" in SOME_TIME..,
        /// Decision while the store does not answer: `local` (each replica by its share of the
        /// limit), `allow`, `deny`, or `error` (gRPC `UNAVAILABLE`, so that the caller decides).
        on_failure: OnStoreFailure = "local",
        /// Maximum of counters in memory.
        memory_max_keys: usize = "1000000" in 1..,
    }
}

section! {
    /// Decisions by a share of each limit, while Redis is away (`local`).
    pub struct FailoverSettings in "failover" {
        /// The least number of replicas that decide: that of the deployment, or the maximum of its
        /// autoscaler. Unset = as many as were seen in Redis, or 8 if it was never reached.
        replicas: Option<u32> = "",
        /// Maximum of counters of shares.
        max_keys: usize = "65536" in 1..=10_000_000,
    }
}

impl FailoverSettings {
    /// There is at least the replica that reads this.
    pub(crate) fn resolve(&self, reader: &mut Reader) {
        if self.replicas == Some(0) {
            reader.refuse("failover.replicas", "found 0, expected at least 1".to_owned());
        }
    }
}

/// A store that cannot fail.
#[derive(Debug)]
pub struct Failover<S> {
    store: Arc<S>,
    on_failure: OnStoreFailure,
    shares: Arc<Shares>,
    metrics: Arc<Metrics>,
}

impl<S: LimitStore> Failover<S> {
    /// Asks `store`; without an answer decides by the rule, otherwise by `on_failure`, and by the
    /// shares of a process that is alone.
    pub fn new(store: S, on_failure: OnStoreFailure, metrics: Arc<Metrics>) -> Self {
        let shares = Arc::new(Shares::alone(Arc::clone(&metrics)));
        Self { store: Arc::new(store), on_failure, shares, metrics }
    }

    /// The same with the shares of a process.
    #[must_use]
    pub fn with_shares(self, shares: Arc<Shares>) -> Self {
        Self { shares, ..self }
    }

    /// Rules on every claim of `ask`, no later than `deadline`.
    pub async fn decide(&self, ask: &mut Ask, commit: Commit, deadline: Deadline) {
        let sent = ask.timed.then(Instant::now);
        let Answer { readings, failure, late, held } =
            self.store.decide(ask.group(), commit, deadline).await;
        if let Some(sent) = sent {
            let failure = failure.as_ref().map(StoreError::kind);
            ask.call = Some(Box::new(StoreCall { sent, answered: Instant::now(), failure }));
        }
        let Some(failure) = ask.join(readings, failure) else { return };
        self.failures(&failure).inc();
        if ask.rule_open(|claim, traits| self.by_mode(claim, traits)) {
            self.shares.decide(ask, commit);
        }
        if commit != Commit::Together {
            return;
        }
        self.shares.settle_later(ask, late);
        if let Some(held) = held.filter(|_| ask.verdict() == Verdict::Admit) {
            held.keep();
        }
    }

    /// The store, and the shares that stand in for it.
    pub(in crate::limiter) fn parts(&self) -> (Arc<S>, Arc<Shares>) {
        (Arc::clone(&self.store), Arc::clone(&self.shares))
    }

    /// True if several servers decide the parts of `group`.
    pub(super) fn splits(&self, group: &Group) -> bool {
        self.store.splits(group)
    }

    /// Resets the counters of `keys`; how many held something.
    pub async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        let forgotten = self.store.forget(keys, deadline).await;
        self.shares.forget(keys);
        forgotten
    }

    /// The counter of failures of this kind.
    fn failures(&self, failure: &StoreError) -> &ShardedCounter {
        let counters = &self.metrics.store.errors;
        match failure {
            StoreError::Timeout => &counters.timeout,
            StoreError::Unavailable(_) => &counters.unavailable,
            StoreError::Rejected(_) => &counters.rejected,
            StoreError::Protocol(_) => &counters.protocol,
        }
    }

    /// The ruling of `allow`, `deny` and `error`; none for `local`.
    fn by_mode(&self, claim: &Claim, traits: Traits) -> Option<Ruling> {
        let (passed, counter) = match traits.on_store_failure.unwrap_or(self.on_failure) {
            OnStoreFailure::Local => return None,
            OnStoreFailure::Error => {
                self.metrics.outage.unanswered.inc();
                return Some(Ruling::unanswered());
            }
            OnStoreFailure::Allow => (true, &self.metrics.outage.allowed),
            // A refund never fails, even one that is lost.
            OnStoreFailure::Deny if matches!(claim.hits, Hits::Refund(_)) => {
                (true, &self.metrics.outage.allowed)
            }
            OnStoreFailure::Deny => (false, &self.metrics.outage.denied),
        };
        counter.inc();
        Some(Ruling::uncounted(passed))
    }
}
