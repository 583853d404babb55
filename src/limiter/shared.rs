//! The state that every core shares, and a request before and after its limits are asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::denied::DeniedLines;
use super::events::LimitEvents;
use super::holds::{Ended, Holds, Plan, Role, plan};
use super::layers::retry_slots::RetrySlots;
use super::mode::{KillSwitch, Mode};
use super::request::{Bounds, Request};
use super::resolve::{Resolution, Resolver};
use super::signals::Fared;
use super::snapshot::{Policies, SnapshotRef};
use super::status::{Decided, Decision, Outcome, Status, statuses};
use super::top::{Ranking, TopCaller, TopCallers, TopQuery};
use crate::domain::{HoldId, Settled, Verdict};
use crate::policy::Rule;
use crate::telemetry::metrics::{HoldState, Metrics, TopLabels};

/// The reason of a call that fails because its limits leave it to the caller.
const STORE_AWAY: &str = "the store of counters does not answer";

/// The reason of a call that fails because there was never a policy.
const NO_POLICIES: &str = "no rate limit configuration loaded";

/// The most requests that one item of a report counts.
const MOST_ALIKE: u32 = 1_000_000;

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

    /// Returns true if a policy or a client names `domain`.
    pub fn knows(&self, domain: &[u8]) -> bool {
        self.policies.current().policies.domain(domain).is_some()
            || self.resolver.clients.has_domain(domain)
    }

    /// The parts of `request`, in a domain with holds.
    pub(super) fn plan<'m>(&self, request: &Request<'m>) -> Option<Plan<'m>> {
        if !self.policies.have_holds() || !self.bounds.hold(request) {
            return None;
        }
        let snapshot = self.policies.current();
        let signs = snapshot.policies.domain(request.domain)?.signs()?;
        plan(request, signs, &self.holds)
    }

    /// The limits that the descriptors of `ended` meet now.
    pub(super) fn resolve_ended<'m>(&self, domain: &'m [u8], ended: &Ended<'m>) -> Resolution {
        let snapshot = self.policies.current();
        let policy = snapshot.policies.domain(domain).map(AsRef::as_ref);
        let descriptors = ended.descriptors.iter().map(|(descriptor, _)| descriptor.clone());
        let asking = Request { domain, descriptors: descriptors.collect() };
        self.resolver.resolve(&asking, &snapshot, policy, Mode::Enforce)
    }

    /// True if a handle of `request` is not good, and its limits are enforced.
    pub(super) fn refuses(&self, plan: &Plan, request: &Request) -> bool {
        plan.roles.contains(&Role::Invalid) && self.modes.of(request.domain) == Mode::Enforce
    }

    /// The decision on a whole request, by that on the descriptors that ask.
    pub(super) fn joined(
        &self,
        request: &Request,
        plan: &Plan,
        asked: Option<Decision>,
    ) -> Decision {
        let mode = self.modes.of(request.domain);
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

    /// A request was admitted under rules that adapt.
    pub(super) fn admitted(&self, rules: &[u32]) {
        if rules.is_empty() {
            return;
        }
        let snapshot = self.policies.current();
        let signals = rules.iter().filter_map(|rule| snapshot.signal_of(*rule));
        signals.for_each(|signal| signal.admitted());
    }

    /// Counts by the `rules` that a handle names how its request has fared, after it was held for
    /// `held`, unless that was counted before. `outcomes`: those of its settlements; `None`: the
    /// store has not answered.
    pub(super) fn report(
        &self,
        (rules, fared): (&[u32], Fared),
        held: Duration,
        outcomes: &[Option<Settled>],
    ) {
        let is_first = |outcome: &Option<Settled>| {
            matches!(outcome, Some(Settled::Now | Settled::Late | Settled::Unguarded))
        };
        let counts = outcomes.is_empty() || outcomes.iter().any(is_first);
        if !counts || !fared.says_something() {
            return;
        }
        let snapshot = self.policies.current();
        let signals = rules.iter().filter_map(|rule| snapshot.signal_of(*rule));
        signals.for_each(|signal| signal.ended(fared, held));
    }

    /// Counts how requests under a rule have fared, each so many times. False: no rule of this
    /// name adapts.
    pub fn report_ends(&self, domain: &[u8], rule: &str, ends: &[(u32, Fared)]) -> bool {
        let snapshot = self.policies.current();
        let named = |known: &&Arc<Rule>| known.domain.as_bytes() == domain && known.label == rule;
        let rule = snapshot.policies.rules().iter().find(named);
        let signal = rule.and_then(|rule| snapshot.signal_of(snapshot.signal(rule)?));
        let Some(signal) = signal else { return false };
        for (count, fared) in ends {
            (0..(*count).min(MOST_ALIKE)).for_each(|_| signal.ended(*fared, Duration::ZERO));
        }
        true
    }

    pub(super) fn begin(&self, request: &Request) -> Begun {
        let snapshot = self.policies.current();
        let mode = self.modes.of(request.domain);
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
        let policy = snapshot.policies.domain(request.domain).map(AsRef::as_ref);
        let awaited = !snapshot.configured && mode == Mode::Enforce;
        // A client alone is not enough to go by: its descriptors may have rules, too.
        let undecidable = awaited || !self.resolver.clients.has_domain(request.domain);
        if policy.is_none() && undecidable {
            let status = Status { outcome: Outcome::UnknownDomain, ..Status::default() };
            let mut unknown = undecided(&status, Verdict::Admit);
            unknown.unavailable = awaited.then_some(NO_POLICIES);
            return Begun::Decided(unknown);
        }
        let resolution = self.resolver.resolve(request, &snapshot, policy, mode);
        // So many limits hold a store up for longer than a decision may take, and undecided
        // requests may pass.
        let of_holds = HoldId::MAX_CLAIMS;
        let most = if resolution.ask.hold().is_some() { of_holds } else { usize::MAX };
        if resolution.ask.len() > self.bounds.limits.min(most) {
            let booked = resolution.ask.claims().map(|(claim, _)| claim.hits.booked());
            let reported = resolution.ask.reported().iter().map(|reported| reported.cost);
            let lost = booked.chain(reported).fold(0, u64::saturating_add);
            self.metrics.outage.unbooked_hits.inc_by(lost);
            return out_of_bounds();
        }
        Begun::Open(Open { resolution, mode, snapshot })
    }
}

/// A request that no limit was asked for yet.
pub(super) enum Begun {
    /// None needs to be.
    Decided(Decision),
    /// These are to be.
    Open(Open),
}

pub(super) struct Open {
    pub(super) resolution: Resolution,
    pub(super) mode: Mode,
    snapshot: SnapshotRef,
}

impl Open {
    pub(super) fn decision(mut self, asked: bool, slots: Option<&RetrySlots>) -> Decision {
        let verdict = self.resolution.ask.verdict();
        if let Some(slots) = slots.filter(|_| verdict == Verdict::Deny) {
            slots.spread(&mut self.resolution.ask, Instant::now());
        }
        let unavailable = self.resolution.ask.is_unanswered().then_some(STORE_AWAY);
        let statuses = statuses(self.resolution);
        let Self { mode, snapshot, .. } = self;
        Decided { verdict, unavailable, statuses, asked, mode, snapshot, hold: None }.into()
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
    let statuses = request.descriptors.iter().map(|_| status.clone()).collect();
    let unavailable = None;
    Decided { verdict, unavailable, statuses, asked: false, mode, snapshot, hold: None }.into()
}
