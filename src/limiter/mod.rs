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
pub mod events;
pub mod explain;
pub mod holds;
pub mod key;
pub mod layers;
pub mod mode;
pub(crate) mod redact;
pub mod report;
pub mod request;
pub mod resolve;
pub mod snapshot;
mod split;
pub mod start;
pub mod status;
mod tally;
pub mod top;
mod traced;
mod unknown;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use self::ask::Ask;
use self::denied::{DeniedLines, log_denial};
use self::events::LimitEvents;
use self::explain::{Explanation, explain};
use self::holds::{Dropped, Ended, Holds, Issued, Plan, Role, Sent, Settlements, issue, plan};
use self::layers::Layers;
use self::layers::retry_slots::RetrySlots;
use self::mode::{KillSwitch, Mode};
use self::request::{Bounds, Request};
use self::resolve::{Resolution, Resolver, Target};
use self::snapshot::{Policies, SnapshotRef};
use self::start::Start;
use self::status::{Decision, Outcome, Status, statuses};
use self::tally::tally;
use self::top::{Ranking, TopCaller, TopCallers, TopQuery};
use self::traced::describe;
use crate::domain::{Commit, HoldId, Key, Verdict};
use crate::store::{Deadline, LimitStore, StoreError};
use crate::telemetry::metrics::{HoldState, Metrics, TopLabels};
use crate::telemetry::traces::Trace;

/// The state that every core shares.
#[derive(Debug)]
pub struct Shared {
    /// The policies in force.
    pub policies: Policies,
    /// The kill switch.
    pub modes: KillSwitch,
    /// The largest request that is decided.
    pub bounds: Bounds,
    /// Finds limits and names counters.
    pub resolver: Resolver,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The callers that are denied most, and those that ask most.
    pub top: TopCallers,
    /// Events of limits.
    pub events: LimitEvents,
    /// The log lines of denials.
    pub denied: DeniedLines,
    /// The keys of handles, and the counts of holds.
    pub holds: Arc<Holds>,
}

impl Shared {
    /// The callers that are denied most, at most `most` of them, as labels of metrics.
    pub fn top_labels(&self, most: usize) -> Vec<(TopLabels, u64)> {
        let Ranking { callers, .. } = self.top.rank(TopQuery::default());
        let snapshot = self.policies.current();
        let labels = |top: &TopCaller| (top.caller.labels(&self.resolver, &snapshot), top.count);
        callers.iter().take(most).map(labels).collect()
    }

    /// The verdict on a request that is too large to be read; counts it. Its domain was not read,
    /// so only the global switch can count.
    pub fn decide_unread(&self) -> Verdict {
        self.metrics.requests.out_of_bounds.inc();
        if self.modes.global() == Mode::Enforce {
            self.metrics.requests.over_limit.inc();
            Verdict::Deny
        } else {
            self.metrics.requests.ok.inc();
            Verdict::Admit
        }
    }
}

/// The reason of a call that fails because its limits leave it to the caller.
const STORE_AWAY: &str = "the store of counters does not answer";

/// The reason of a call that fails because there was never a policy.
const NO_POLICIES: &str = "no rate limit configuration loaded";

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
    pub async fn decide(&self, request: &Request, deadline: Deadline) -> Decision {
        self.decide_traced(request, deadline, None).await
    }

    /// [`Self::decide`] with a span for the decision, if it is traced.
    ///
    /// # Cancel safety
    /// A dropped call is charged as a whole or not at all.
    pub async fn decide_traced(
        &self,
        request: &Request,
        deadline: Deadline,
        trace: Option<&mut Trace>,
    ) -> Decision {
        if let Some(start) = &self.start {
            start.wait(deadline).await;
        }
        let Some(plan) = self.shared.plan(request) else {
            return self.decide_asking(request, deadline, trace).await;
        };
        // First, so that a caller in turn is not refused by its own last request.
        plan.ended.iter().for_each(|ended| drop(self.settle(&request.domain, ended)));
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
        request: &Request,
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
            policies.unknown.warn(&request.domain, &decision.snapshot.policies);
        }
        decision
    }

    async fn decide_uncounted(
        &self,
        request: &Request,
        deadline: Deadline,
        trace: Option<&Trace>,
    ) -> Decision {
        match self.shared.begin(request) {
            Begun::Decided(decision) => decision,
            Begun::Open(mut open) => {
                let (ask, commit) = (&mut open.resolution.ask, Commit::Together);
                ask.timed = trace.is_some();
                let held = ask.hold();
                let dropped = held.map(|id| Dropped::new(&self.settlements, id, ask));
                let asked = self.layers.decide(ask, commit, deadline).await;
                dropped.into_iter().for_each(Dropped::heard);
                if let Some((trace, call)) = trace.zip(ask.call.as_ref()) {
                    trace.store_call(call);
                }
                let hold = held.and_then(|id| self.hold(&request.domain, ask, id));
                Decision { hold, ..open.decision(asked, self.slots.as_deref()) }
            }
        }
    }

    /// The hold of a request that was decided; none: it was denied, or nothing is held.
    fn hold(&self, domain: &[u8], ask: &Ask, id: HoldId) -> Option<Arc<Issued>> {
        let admitted = ask.verdict() == Verdict::Admit && !ask.is_unanswered();
        let issued = || issue(&self.shared.holds, domain, ask, id, &self.settlements);
        admitted.then(issued).flatten()
    }

    /// Settles the request of `ended`, by the limits that its descriptors meet now.
    fn settle(&self, domain: &Bytes, ended: &Ended) -> Vec<Sent> {
        let Resolution { descriptors, ask } = self.shared.resolve_ended(domain, ended);
        let mut costs = vec![None; ask.len()];
        for (resolved, (_, cost)) in descriptors.iter().zip(&ended.descriptors) {
            let Target::Part(part) = &resolved.target else { continue };
            for of_claim in costs.get_mut(part.claims.clone()).unwrap_or_default() {
                *of_claim = *cost;
            }
        }
        self.settlements.settle(ended, &ask, &costs)
    }

    /// Explains the decision that [`Self::decide`] would make; charges and counts nothing.
    pub async fn explain(&self, request: &Request, deadline: Deadline) -> Explanation {
        let domain_known = self.shared.knows(&request.domain);
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

/// A request that no limit was asked for yet.
enum Begun {
    /// None needs to be.
    Decided(Decision),
    /// These are to be.
    Open(Open),
}

struct Open {
    resolution: Resolution,
    mode: Mode,
    snapshot: SnapshotRef,
}

impl Open {
    fn decision(mut self, asked: bool, slots: Option<&RetrySlots>) -> Decision {
        let verdict = self.resolution.ask.verdict();
        if let Some(slots) = slots.filter(|_| verdict == Verdict::Deny) {
            slots.spread(&mut self.resolution.ask, Instant::now());
        }
        let unavailable = self.resolution.ask.is_unanswered().then_some(STORE_AWAY);
        let statuses = statuses(self.resolution);
        let Self { mode, snapshot, .. } = self;
        Decision { verdict, unavailable, statuses, asked, mode, snapshot, hold: None }
    }
}

impl Shared {
    /// Returns true if a policy or a client names `domain`.
    pub fn knows(&self, domain: &[u8]) -> bool {
        self.policies.current().policies.domain(domain).is_some()
            || self.resolver.clients.has_domain(domain)
    }

    /// The parts of `request`, in a domain with holds.
    fn plan(&self, request: &Request) -> Option<Plan> {
        if !self.policies.have_holds() || !self.bounds.hold(request) {
            return None;
        }
        let snapshot = self.policies.current();
        let signs = snapshot.policies.domain(&request.domain)?.signs()?;
        plan(request, signs, &self.holds)
    }

    /// The limits that the descriptors of `ended` meet now.
    fn resolve_ended(&self, domain: &Bytes, ended: &Ended) -> Resolution {
        let snapshot = self.policies.current();
        let policy = snapshot.policies.domain(domain).map(AsRef::as_ref);
        let descriptors = ended.descriptors.iter().map(|(descriptor, _)| descriptor.clone());
        let asking = Request { domain: domain.clone(), descriptors: descriptors.collect() };
        self.resolver.resolve(&asking, &snapshot, policy, Mode::Enforce)
    }

    /// True if a handle of `request` is not good, and its limits are enforced.
    fn refuses(&self, plan: &Plan, request: &Request) -> bool {
        plan.roles.contains(&Role::Invalid) && self.modes.of(&request.domain) == Mode::Enforce
    }

    /// The decision on a whole request, by that on the descriptors that ask.
    fn joined(&self, request: &Request, plan: &Plan, asked: Option<Decision>) -> Decision {
        let mode = self.modes.of(&request.domain);
        let shadow = mode != Mode::Enforce;
        let invalid = Status { outcome: Outcome::InvalidHold, shadow, ..Status::default() };
        let ended = Status { outcome: Outcome::Settled, ..Status::default() };
        let refused = self.refuses(plan, request);
        if plan.roles.contains(&Role::Invalid) {
            self.holds.metrics.count(HoldState::Invalid);
        }
        let mut decision = asked.unwrap_or_else(|| {
            let requests = &self.metrics.requests;
            let counter = if refused { &requests.over_limit } else { &requests.ok };
            counter.inc();
            let snapshot = self.policies.current();
            undecided(request, mode, snapshot, &ended, Verdict::Admit)
        });
        let of_asking = std::mem::take(&mut decision.statuses);
        let status = |role: &Role| match role {
            Role::Asks(at) => of_asking.get(*at).cloned().unwrap_or_default(),
            Role::Ends => ended.clone(),
            Role::Invalid => invalid.clone(),
        };
        decision.statuses = plan.roles.iter().map(status).collect();
        if refused {
            decision.verdict = Verdict::Deny;
        }
        decision
    }

    fn begin(&self, request: &Request) -> Begun {
        let snapshot = self.policies.current();
        let mode = self.modes.of(&request.domain);
        let undecided =
            |status: &Status, verdict| undecided(request, mode, snapshot.clone(), status, verdict);
        if mode == Mode::Off {
            return Begun::Decided(undecided(&Status::default(), Verdict::Admit));
        }
        let out_of_bounds = || {
            let shadow = mode == Mode::Shadow;
            let status = Status { outcome: Outcome::OutOfBounds, shadow, ..Status::default() };
            let verdict = if shadow { Verdict::Admit } else { Verdict::Deny };
            Begun::Decided(undecided(&status, verdict))
        };
        if !self.bounds.hold(request) {
            return out_of_bounds();
        }
        let policy = snapshot.policies.domain(&request.domain).map(AsRef::as_ref);
        let awaited = !snapshot.configured && mode == Mode::Enforce;
        // A client alone is not enough to go by: its descriptors may have rules, too.
        let undecidable = awaited || !self.resolver.clients.has_domain(&request.domain);
        if policy.is_none() && undecidable {
            let status = Status { outcome: Outcome::UnknownDomain, ..Status::default() };
            let unknown = undecided(&status, Verdict::Admit);
            let unavailable = awaited.then_some(NO_POLICIES);
            return Begun::Decided(Decision { unavailable, ..unknown });
        }
        let resolution = self.resolver.resolve(request, &snapshot, policy, mode);
        // So many limits hold a store up for longer than a decision may take, and undecided
        // requests may pass.
        let of_holds = HoldId::MAX_CLAIMS;
        let most = if resolution.ask.hold().is_some() { of_holds } else { usize::MAX };
        if resolution.ask.len() > self.bounds.limits.min(most) {
            let booked = resolution.ask.claims().map(|(claim, _)| claim.hits.booked());
            let lost = booked.fold(0, u64::saturating_add);
            self.metrics.outage.unbooked_hits.inc_by(lost);
            return out_of_bounds();
        }
        Begun::Open(Open { resolution, mode, snapshot })
    }
}

/// A decision for which no limit was asked: the same status for every descriptor.
fn undecided(
    request: &Request,
    mode: Mode,
    snapshot: SnapshotRef,
    status: &Status,
    verdict: Verdict,
) -> Decision {
    let statuses = vec![status.clone(); request.descriptors.len()];
    Decision { verdict, unavailable: None, statuses, asked: false, mode, snapshot, hold: None }
}

#[cfg(test)]
mod tests;
