//! The use case: a request comes in, a decision goes out.
//!
//! [`resolve`] finds the limits, the layers over the store rule on their claims, [`status`] makes
//! the answer of them. No protocol here. Every request gets a decision, in time; where a limit says
//! so, or before the first policy, the decision is that the caller decides.
//!
//! # Concurrency
//! No decision writes a cache line that every core writes:
//! * the snapshot and its rules: one reference count per thread, see [`snapshot`];
//! * the kill switch and the domains of clients: read by way of `arc_swap`, which notes readers per
//!   thread;
//! * counts and latencies: one shard per thread, see [`crate::telemetry::sharded`].
//!
//! Other shared state is chosen by key, so only decisions on the same key, or on one that shares
//! its lock, meet there:
//! * the memory store's shard of the counter;
//! * in domains with clients, the directory's shard of the descriptor, and the client's own
//!   reference count;
//! * with Redis, the set of the deny cache or of the leases that the counter belongs to;
//! * of a denial, the set of retry slots that the counter belongs to;
//! * of a request that is traced, the queue of spans;
//! * of a rule with `detailed_metric` or `value_to_metric`, the shard of its label; with
//!   `metrics.names: reference` of an override, too.

pub mod advice;
pub mod ask;
pub mod denied;
mod estimates;
pub mod events;
pub mod explain;
pub mod holds;
pub mod key;
pub mod layers;
pub mod lists;
pub mod mode;
pub(crate) mod redact;
pub mod report;
pub mod request;
pub mod resolve;
pub mod scales;
mod shared;
pub mod signals;
pub mod snapshot;
mod split;
pub mod start;
pub mod status;
mod tally;
pub mod top;
mod traced;
mod unknown;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::runtime::Handle as Runtime;

use self::ask::Ask;
use self::denied::log_denial;
use self::explain::{Explanation, explain};
use self::holds::{CostSamples, Dropped, Ended, Issued, Sent, Settlements, costs, issue};
use self::layers::Layers;
use self::layers::retry_slots::RetrySlots;
use self::request::Request;
use self::shared::Begun;
pub use self::shared::Shared;
use self::start::Start;
use self::status::Decision;
use self::tally::tally;
use self::traced::describe;
use crate::domain::{Commit, HoldId, Key, Verdict};
use crate::store::{Deadline, LimitStore, StoreError};
use crate::telemetry::traces::Trace;

/// Decides requests. One per core, over what they share.
#[derive(Debug)]
pub struct Limiter<S> {
    shared: Arc<Shared>,
    layers: Layers<S>,
    settlements: Arc<Settlements<S>>,
    /// Decisions wait for its end; none: they do not.
    start: Option<Arc<Start>>,
    /// Spreads the waits of denied callers; none: all are told the same.
    slots: Option<Arc<RetrySlots>>,
}

impl<S: LimitStore> Limiter<S> {
    /// Decides by `shared` and `layers`.
    pub fn new(shared: Arc<Shared>, layers: Layers<S>) -> Self {
        let (store, shares) = layers.failover.parts();
        let settlements = Arc::new(Settlements::new(store, shares, Arc::clone(&shared.holds)));
        Self { shared, layers, settlements, start: None, slots: None }
    }

    /// The same with decisions that wait for the end of `start`.
    #[must_use]
    pub fn after(self, start: Arc<Start>) -> Self {
        Self { start: Some(start), ..self }
    }

    /// The same with the waits of denied callers spread by `slots`.
    #[must_use]
    pub fn spread_by(self, slots: Option<Arc<RetrySlots>>) -> Self {
        Self { slots, ..self }
    }

    /// The state that every core shares.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Decides `request`, no later than `deadline` once the process has started.
    ///
    /// # Cancel safety
    /// A dropped call is charged as a whole or not at all.
    pub async fn decide(&self, request: &Request<'_>, deadline: Deadline) -> Decision {
        self.decide_traced(request, deadline, None).await
    }

    /// [`Self::decide`] with a span for the decision, if it is traced.
    ///
    /// # Cancel safety
    /// A dropped call is charged as a whole or not at all.
    pub async fn decide_traced(
        &self,
        request: &Request<'_>,
        deadline: Deadline,
        trace: Option<&mut Trace>,
    ) -> Decision {
        if let Some(start) = &self.start {
            start.wait(deadline).await;
        }
        let Some(mut plan) = self.shared.plan(request) else {
            return self.decide_asking(request, deadline, trace).await;
        };
        // First, so that a caller in turn is not refused by its own last request.
        let ended = std::mem::take(&mut plan.ended);
        for ended in ended {
            self.end(request.domain, &ended);
        }
        // What is refused in any case charges nothing.
        let asked = if plan.asking.descriptors.is_empty() || self.shared.refuses(&plan, request) {
            None
        } else {
            Some(self.decide_asking(&plan.asking, deadline, trace).await)
        };
        self.shared.joined(request, &plan, asked)
    }

    /// Decides a request without the descriptors that end others.
    async fn decide_asking(
        &self,
        request: &Request<'_>,
        deadline: Deadline,
        mut trace: Option<&mut Trace>,
    ) -> Decision {
        let decision = self.decide_uncounted(request, deadline, trace.as_deref()).await;
        if let Some(trace) = &mut trace {
            let near_ratio = self.shared.metrics.near_limit_ratio;
            describe(trace, request, &decision, near_ratio);
        }
        let Shared { metrics, resolver, policies, top, events, denied, .. } = &*self.shared;
        let hasher = resolver.keys.hasher();
        tally(metrics, hasher, request, &decision);
        top.note(hasher, request, &decision);
        events.note(hasher, request, &decision);
        log_denial(denied, metrics, hasher, request, &decision);
        if decision.is_of_unknown_domain() && decision.unavailable.is_none() {
            policies.unknown.warn(request.domain, &decision.snapshot.policies);
        }
        decision
    }

    async fn decide_uncounted(
        &self,
        request: &Request<'_>,
        deadline: Deadline,
        trace: Option<&Trace>,
    ) -> Decision {
        match self.shared.begin(request) {
            Begun::Decided(decision) => decision,
            Begun::Open(mut open) => {
                let (ask, commit) = (&mut open.resolution.ask, Commit::Together);
                ask.timed = trace.is_some();
                // Takes effect whatever becomes of the call.
                self.settlements.end_oldest(ask);
                let held = ask.hold();
                let dropped = held.map(|id| Dropped::new(&self.settlements, id, ask));
                let asked = self.layers.decide(ask, commit, deadline).await;
                dropped.into_iter().for_each(Dropped::heard);
                if let Some((trace, call)) = trace.zip(ask.call.as_ref()) {
                    trace.store_call(call);
                }
                let hold = held.and_then(|id| self.hold(request.domain, ask, id));
                if hold.is_some() {
                    self.shared.admitted(ask.rules());
                }
                let mut decision = open.decision(asked, self.slots.as_deref());
                decision.hold = hold;
                decision
            }
        }
    }

    /// The hold of a request that was decided; none: it was denied, or nothing is held.
    fn hold(&self, domain: &[u8], ask: &Ask, id: HoldId) -> Option<Arc<Issued>> {
        let admitted = ask.verdict() == Verdict::Admit && !ask.is_unanswered();
        let issued = || issue(&self.shared.holds, domain, ask, id, &self.settlements);
        admitted.then(issued).flatten()
    }

    /// Settles the request of `ended`, and counts how it has fared once that has taken effect: a
    /// report that is delivered twice counts once.
    fn end<'m>(&self, domain: &'m [u8], ended: &Ended<'m>) {
        let (sent, samples) = self.settle(domain, ended);
        let (shared, held) = (Arc::clone(&self.shared), self.held_for(ended));
        // A handle that is over says nothing: who keeps one could report for ever.
        let is_over = held >= ended.handle.ttl;
        let reports = !ended.handle.reports.is_empty() && ended.fared.says_something();
        if is_over || (!reports && samples.is_empty()) {
            return;
        }
        let (reports, fared) = (ended.handle.reports.clone(), ended.fared);
        let counted = async move {
            let outcomes = join_all(sent.into_iter().map(Sent::outcome)).await;
            samples.record(&outcomes);
            shared.report((&reports, fared), held, &outcomes);
        };
        let mut counted = Box::pin(counted);
        // Without a runtime nothing is under way.
        if counted.as_mut().now_or_never().is_none()
            && let Ok(runtime) = Runtime::try_current()
        {
            drop(runtime.spawn(counted));
        }
    }

    /// The time since the hold of `ended` was made.
    fn held_for(&self, ended: &Ended<'_>) -> Duration {
        let now = self.settlements.now();
        Duration::from_micros(now.micros_since(ended.handle.at))
    }

    /// Settles the request of `ended`, by the limits that its descriptors meet now.
    fn settle<'m>(&self, domain: &'m [u8], ended: &Ended<'m>) -> (Vec<Sent>, CostSamples) {
        let resolution = self.shared.resolve_ended(domain, ended);
        let (costs, samples) = costs(&resolution, ended);
        let ask = &resolution.ask;
        let sent = self.settlements.settle(ended, ask, &costs);
        let claims = ask.held().iter().filter_map(|held| ask.claim(held.claim));
        self.layers.forget_denials(claims.map(|(claim, _)| &claim.key));
        (sent, samples)
    }

    /// Explains the decision that [`Self::decide`] would make; charges and counts nothing.
    pub async fn explain(&self, request: &Request<'_>, deadline: Deadline) -> Explanation {
        let Some(plan) = self.shared.plan(request) else {
            return self.explain_asking(request, deadline).await;
        };
        let asking = self.explain_asking(&plan.asking, deadline).await;
        asking.of_whole(&plan, self.shared.refuses(&plan, request))
    }

    async fn explain_asking(&self, request: &Request<'_>, deadline: Deadline) -> Explanation {
        let domain_known = self.shared.knows(request.domain);
        match self.shared.begin(request) {
            Begun::Decided(decision) => {
                Explanation { decision, domain_known, descriptors: Vec::new() }
            }
            Begun::Open(mut open) => {
                let commit = Commit::Never;
                let ask = &mut open.resolution.ask;
                let asked = self.layers.decide(ask, commit, deadline).await;
                let descriptors = explain(&open.resolution);
                Explanation { decision: open.decision(asked, None), domain_known, descriptors }
            }
        }
    }

    /// Empties the counters of `keys`; how many held something.
    pub async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        self.layers.forget(keys, deadline).await
    }
}

#[cfg(test)]
mod tests;
