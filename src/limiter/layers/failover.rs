//! The layer that always has an answer: what the store leaves open is decided by the rule's failure
//! mode.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Claim, Commit, Hits, Reading};
use crate::limiter::ask::{Ask, Ruling, Traits};
use crate::policy::OnStoreFailure;
use crate::settings::{SOME_TIME, section};
use crate::store::{LimitStore, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::sharded::ShardedCounter;

section! {
    /// Decisions and the store that counts.
    pub struct StoreSettings in "store" {
        /// Time to decide. A caller's shorter deadline takes precedence.
        deadline: Duration = "10ms" in SOME_TIME..,
        /// Decision while the store does not answer: `allow` or `deny`.
        on_failure: OnStoreFailure = "allow",
        /// Maximum of counters in memory.
        memory_max_keys: usize = "1000000" in 1..,
    }
}

/// The wait that a denial without a store reports.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A store that cannot fail.
#[derive(Debug)]
pub struct Failover<S> {
    store: S,
    on_failure: OnStoreFailure,
    metrics: Arc<Metrics>,
}

impl<S: LimitStore> Failover<S> {
    /// Asks `store`; without an answer decides by the rule, otherwise by `on_failure`.
    pub const fn new(store: S, on_failure: OnStoreFailure, metrics: Arc<Metrics>) -> Self {
        Self { store, on_failure, metrics }
    }

    /// The store beneath.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Rules on every claim of `ask`, no later than `deadline`.
    pub async fn decide(&self, ask: &mut Ask, commit: Commit, deadline: Instant) {
        let answer = self.store.decide(ask.group(), commit, deadline).await;
        if let Some(failure) = ask.join(answer, |claim, traits| self.degraded(claim, traits)) {
            self.failures(&failure).inc();
        }
    }

    /// The counter of failures of this kind.
    fn failures(&self, failure: &StoreError) -> &ShardedCounter {
        let counters = &self.metrics.store_errors;
        match failure {
            StoreError::Timeout => &counters.timeout,
            StoreError::Unavailable(_) => &counters.unavailable,
            StoreError::Rejected(_) => &counters.rejected,
            StoreError::Protocol(_) => &counters.protocol,
        }
    }

    fn degraded(&self, claim: &Claim, traits: Traits) -> Ruling {
        let mode = traits.on_store_failure.unwrap_or(self.on_failure);
        // A refund never fails, even one that is lost.
        let passed = mode == OnStoreFailure::Allow || matches!(claim.hits, Hits::Refund(_));
        let counter =
            if passed { &self.metrics.degraded_allowed } else { &self.metrics.degraded_denied };
        counter.inc();
        let retry_after = Some(if passed { Duration::ZERO } else { RETRY_AFTER });
        let reading = Reading {
            passed,
            remaining: 0,
            retry_after,
            reset_after: RETRY_AFTER,
            leased_until: None,
        };
        Ruling { reading, degraded: true }
    }
}
