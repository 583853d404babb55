//! The use case: a request comes in, a decision goes out.
//!
//! [`resolve`] finds the limits, the layers over the store rule on their claims, [`status`] says what the caller
//! is told. No protocol here, and never an error: whatever is asked gets a decision, in time.

pub mod ask;
pub mod failover;
pub mod key;
pub mod request;
pub mod resolve;
pub mod snapshot;
pub mod status;
mod tally;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use self::failover::Failover;
use self::request::{Bounds, Request};
use self::resolve::Resolver;
use self::snapshot::{Mode, Modes, Policies, Snapshot};
use self::status::{Decision, Outcome, Status, statuses};
use self::tally::tally;
use crate::domain::{Commit, Verdict};
use crate::store::LimitStore;
use crate::telemetry::metrics::Metrics;

/// What every core shares.
#[derive(Debug)]
pub struct Shared {
    /// The policies in force.
    pub policies: Policies,
    /// The kill switch.
    pub modes: ArcSwap<Modes>,
    /// The largest request that is looked at.
    pub bounds: Bounds,
    /// Finds limits and names counters.
    pub resolver: Resolver,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    /// The verdict on a request that is too large to be read; counts it. Its domain is in what nobody has read, so
    /// only the global switch can count.
    pub fn decide_unread(&self) -> Verdict {
        self.metrics.out_of_bounds.inc();
        if self.modes.load().global == Mode::Enforce {
            self.metrics.requests_over_limit.inc();
            Verdict::Deny
        } else {
            self.metrics.requests_ok.inc();
            Verdict::Admit
        }
    }
}

/// Decides requests. One per core, over what they share.
#[derive(Debug)]
pub struct Limiter<S> {
    shared: Arc<Shared>,
    layers: Failover<S>,
}

impl<S: LimitStore> Limiter<S> {
    /// Decides by `shared` and `layers`.
    pub const fn new(shared: Arc<Shared>, layers: Failover<S>) -> Self {
        Self { shared, layers }
    }

    /// What every core shares.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Decides `request`, no later than `deadline`.
    ///
    /// # Cancel safety
    /// A dropped call is charged as a whole or not at all.
    pub async fn decide(&self, request: &Request, deadline: Instant) -> Decision {
        let decision = self.decide_uncounted(request, deadline).await;
        tally(&self.shared.metrics, self.shared.resolver.keys.hasher(), request, &decision);
        decision
    }

    async fn decide_uncounted(&self, request: &Request, deadline: Instant) -> Decision {
        let snapshot = self.shared.policies.current();
        let mode = self.shared.modes.load().of(&request.domain);
        if mode == Mode::Off {
            return undecided(request, mode, snapshot, &Status::default(), Verdict::Admit);
        }
        if !self.shared.bounds.hold(request) {
            return self.out_of_bounds(request, mode, snapshot);
        }
        let Some(policy) = snapshot.policies.domain(&request.domain) else {
            self.shared.metrics.unknown_domain.inc();
            return undecided(request, mode, snapshot, &Status::default(), Verdict::Admit);
        };
        let resolution = self.shared.resolver.resolve(request, &snapshot, policy, mode);
        let rulings = self.layers.decide(&resolution.ask, Commit::Together, deadline).await;
        let passed = |claim: usize| rulings.get(claim).is_some_and(|ruling| ruling.reading.passed);
        let verdict = resolution.ask.group.verdict(passed);
        let statuses = statuses(&resolution, &rulings);
        Decision { verdict, statuses, mode, snapshot }
    }

    /// The answer to a request that is too large to be looked at.
    pub fn out_of_bounds(
        &self,
        request: &Request,
        mode: Mode,
        snapshot: Arc<Snapshot>,
    ) -> Decision {
        self.shared.metrics.out_of_bounds.inc();
        let shadow = mode == Mode::Shadow;
        let status = Status { outcome: Outcome::OutOfBounds, shadow, ..Status::default() };
        let verdict = if shadow { Verdict::Admit } else { Verdict::Deny };
        undecided(request, mode, snapshot, &status, verdict)
    }
}

/// A decision for which no limit was asked: the same status for every descriptor.
fn undecided(
    request: &Request,
    mode: Mode,
    snapshot: Arc<Snapshot>,
    status: &Status,
    verdict: Verdict,
) -> Decision {
    let statuses = vec![status.clone(); request.descriptors.len()];
    Decision { verdict, statuses, mode, snapshot }
}
