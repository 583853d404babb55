//! The explanation of a decision: all that it rests on, and nothing charged.

use std::sync::Arc;

use super::ask::Ruling;
use super::ask::{Ask, Asked, Basis, Traits};
use super::holds::{Plan, Role};
use super::report::Report;
use super::resolve::{Resolution, Resolved, Target};
use super::status::{Decision, Outcome, Status};
use crate::domain::{Claim, Key, Limit, Verdict};
use crate::limits::Client;

/// A decision that was not made, with its reasons.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The decision, had it been made.
    pub decision: Decision,
    /// True if a policy or a client names the domain.
    pub domain_known: bool,
    /// One per descriptor, same order; none where nothing was looked at.
    pub descriptors: Vec<Explained>,
}

/// The limits of one descriptor, and what sets them.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// Sets the limits.
    pub decided_by: DecidedBy,
    /// The client that it is.
    pub client: Option<Arc<Client>>,
    /// Counts among the quota descriptors.
    pub quota: bool,
    /// Its limits.
    pub counters: Vec<CounterState>,
}

/// The source of the limits that apply to a descriptor.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DecidedBy {
    /// The client's.
    Client,
    /// Those that the request brings along.
    Override,
    /// The rule's.
    Rule,
    /// There are none.
    #[default]
    Nobody,
    /// The request brings one along that cannot be understood.
    InvalidOverride,
}

impl DecidedBy {
    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Override => "override",
            Self::Rule => "rule",
            Self::Nobody => "none",
            Self::InvalidOverride => "invalid_override",
        }
    }
}

/// One limit and its counter.
#[derive(Clone, Debug)]
pub struct CounterState {
    /// The counter.
    pub key: Key,
    /// The limit as it is counted.
    pub limit: Limit,
    /// The limit as it is reported.
    pub report: Report,
    /// The terms that the layers apply.
    pub traits: Traits,
    /// The ruling that the hits would get.
    pub ruling: Ruling,
    /// The hits that would be held, and where their number comes from; none: they are taken at
    /// once, or are one of a concurrency limit.
    pub estimate: Option<(u64, Basis)>,
}

impl Explanation {
    /// The explanation of the whole request of `plan`, of which this is the part that asks.
    pub(super) fn of_whole(mut self, plan: &Plan, refused: bool) -> Self {
        let statuses = std::mem::take(&mut self.decision.statuses);
        let descriptors = std::mem::take(&mut self.descriptors);
        for role in &plan.roles {
            let (status, explained) = match role {
                Role::Asks(at) => (statuses.get(*at).cloned(), descriptors.get(*at).cloned()),
                Role::Ends => (Some(of_handle(Outcome::Settled)), None),
                Role::Invalid => (Some(of_handle(Outcome::InvalidHold)), None),
            };
            self.decision.statuses.push(status.unwrap_or_default());
            self.descriptors.push(explained.unwrap_or_default());
        }
        if refused {
            self.decision.verdict = Verdict::Deny;
        }
        self
    }
}

/// The status of a descriptor that brings a handle back.
fn of_handle(outcome: Outcome) -> Status {
    Status { outcome, ..Status::default() }
}

/// Explains every descriptor of `resolution`, on which the layers have ruled.
pub(super) fn explain(resolution: &Resolution) -> Vec<Explained> {
    resolution.descriptors().iter().map(|resolved| one(resolved, &resolution.ask)).collect()
}

fn one(resolved: &Resolved, ask: &Ask) -> Explained {
    let part = match &resolved.target {
        Target::Part(part) => Some(part),
        Target::Nothing | Target::Unlimited | Target::InvalidOverride(_) => None,
    };
    // A slot that counts a hold without a handle limits nothing.
    let is_shown = |position: usize| ask.unnamed().iter().all(|hold| hold.slot != position);
    let estimate = |position: usize, claim: &Claim| {
        let held = ask.held().iter().find(|held| held.claim == position && held.terms.is_some());
        let unnamed = ask.unnamed().iter().find(|hold| hold.claim == position);
        let basis = held.map(|held| held.basis).or(unnamed.map(|_| Basis::Rule))?;
        Some((claim.hits.charged()?, basis))
    };
    let counter = |(position, (claim, asked)): (usize, (&Claim, &Asked))| CounterState {
        key: claim.key.clone(),
        limit: claim.limit,
        report: asked.report.clone(),
        traits: asked.traits,
        ruling: *asked.ruling(),
        estimate: estimate(position, claim),
    };
    let claims = part.map(|part| part.claims.clone().zip(ask.claims_of(part)));
    let claims = claims.into_iter().flatten().filter(|(position, _)| is_shown(*position));
    Explained {
        decided_by: decided_by(resolved),
        client: resolved.client.clone(),
        quota: part.is_some_and(|part| part.quota),
        counters: claims.map(counter).collect(),
    }
}

fn decided_by(resolved: &Resolved) -> DecidedBy {
    match resolved.target {
        Target::InvalidOverride(_) => DecidedBy::InvalidOverride,
        _ if resolved.client.is_some() => DecidedBy::Client,
        Target::Part(_) if resolved.overridden => DecidedBy::Override,
        Target::Part(_) | Target::Unlimited => DecidedBy::Rule,
        Target::Nothing => DecidedBy::Nobody,
    }
}
