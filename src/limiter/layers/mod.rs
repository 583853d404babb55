//! The layers over a store, outermost first: what needs no store is answered without, and what the
//! store leaves open has an answer too.

pub mod deny_cache;
pub mod failover;
mod key_table;
pub mod leases;
pub mod retry_slots;

use std::sync::Arc;

use tokio::time::Instant;

use self::deny_cache::DenyCache;
use self::failover::Failover;
use self::leases::Leases;
use crate::domain::{Commit, Key};
use crate::limiter::ask::{Ask, Ruling};
use crate::store::{Deadline, LimitStore, StoreError};

/// A store with its layers. One per core; what they remember is the process's.
#[derive(Debug)]
pub struct Layers<S> {
    /// None: every request is decided anew.
    pub denials: Option<Arc<DenyCache>>,
    /// None: no tokens are held, whatever policies say.
    pub leases: Option<Arc<Leases>>,
    /// The store, with an answer when it has none.
    pub failover: Failover<S>,
}

impl<S: LimitStore> Layers<S> {
    /// Nothing but the store and its failover.
    pub const fn bare(failover: Failover<S>) -> Self {
        Self { denials: None, leases: None, failover }
    }

    /// Rules on every claim of `ask`, no later than `deadline`. Claims may be asked to bring leases
    /// back. Returns true if the store was asked.
    pub(super) async fn decide(&self, ask: &mut Ask, commit: Commit, deadline: Deadline) -> bool {
        if commit != Commit::Together {
            self.failover.decide(ask, commit, deadline).await;
            return true;
        }
        if let Some(rulings) = certain(ask) {
            ask.rule(rulings);
            return false;
        }
        if self.denials.is_none() && self.leases.is_none() {
            self.failover.decide(ask, commit, deadline).await;
            return true;
        }
        let now = Instant::now();
        if let Some(rulings) = self.recall(ask, now) {
            ask.rule(rulings);
            return false;
        }
        let split = self.failover.splits(ask.group());
        if let Some(leases) = self.leases.as_ref().filter(|_| !split) {
            leases.prepare(ask, now, deadline.due());
        }
        self.failover.decide(ask, commit, deadline.asked(now)).await;
        if let Some(leases) = &self.leases {
            leases.store_grants(ask, now);
        }
        if let Some(denials) = &self.denials {
            denials.remember(ask, now, split);
        }
        true
    }

    /// The rulings that need no store, one per claim, same order.
    fn recall(&self, ask: &Ask, now: Instant) -> Option<Vec<Ruling>> {
        let denied = self.denials.as_ref().and_then(|denials| denials.recall(ask, now));
        denied.or_else(|| self.leases.as_ref()?.spend(ask, now))
    }

    /// Empties the counters of `keys`, and forgets what was remembered of them; how many held
    /// something.
    pub(super) async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        let forgotten = self.failover.forget(keys, deadline).await;
        self.forget_denials(keys);
        let now = Instant::now();
        self.leases.iter().for_each(|leases| leases.forget(keys, now));
        forgotten
    }

    /// Forgets the denials of `keys`, whose counters have room again, or will have once the store
    /// has what was sent to it.
    pub(super) fn forget_denials<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) {
        let Some(denials) = &self.denials else { return };
        let now = Instant::now();
        keys.into_iter().for_each(|key| denials.forget(key, now));
    }
}

/// The rulings on `ask`, if no counter can change them. Most requests end at their first claim, and
/// nothing is allocated.
fn certain(ask: &Ask) -> Option<Vec<Ruling>> {
    ask.group().claims.iter().map(|claim| claim.certain().map(Ruling::from)).collect()
}

#[cfg(test)]
mod tests;
