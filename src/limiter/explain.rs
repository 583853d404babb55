//! What would become of a request: everything that a decision knows, and nothing charged.

use std::ops::Range;
use std::sync::Arc;

use super::ask::Traits;
use super::layers::failover::Ruling;
use super::resolve::{Report, Resolution, Resolved, Target};
use super::status::Decision;
use crate::domain::{Key, Limit, Part};
use crate::limits::Client;

/// A decision that was not made, with its reasons.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the decision would be.
    pub decision: Decision,
    /// Whether a policy or a client names the domain.
    pub domain_known: bool,
    /// One per descriptor, same order; none where nothing was looked at.
    pub descriptors: Vec<Explained>,
}

/// Who would limit one descriptor.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Who.
    pub decided_by: DecidedBy,
    /// The client that it is.
    pub client: Option<Arc<Client>>,
    /// Counts among the quota descriptors.
    pub quota: bool,
    /// Its limits.
    pub counters: Vec<CounterState>,
}

/// Whose limits apply to a descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecidedBy {
    /// The client's.
    Client,
    /// Those that the request brings along.
    Override,
    /// The rule's.
    Rule,
    /// Nobody's.
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
    /// What the layers know of it.
    pub traits: Traits,
    /// What the hits would get.
    pub ruling: Ruling,
}

/// Explains every descriptor of `resolution`; one ruling per claim, same order.
pub(super) fn explain(resolution: &Resolution, rulings: &[Ruling]) -> Vec<Explained> {
    resolution.descriptors.iter().map(|resolved| one(resolved, resolution, rulings)).collect()
}

fn one(resolved: &Resolved, resolution: &Resolution, rulings: &[Ruling]) -> Explained {
    let ask = &resolution.ask;
    let part: Option<&Part> = match resolved.target {
        Target::Part(i) => ask.group.parts.get(i),
        Target::Nothing | Target::Unlimited | Target::InvalidOverride(_) => None,
    };
    let claims: Range<usize> = part.map_or(0..0, |part| part.claims.clone());
    let counter = |i: usize| {
        let claim = ask.group.claims.get(i)?;
        Some(CounterState {
            key: claim.key.clone(),
            limit: claim.limit,
            report: resolution.reports.get(i)?.clone(),
            traits: *ask.traits.get(i)?,
            ruling: *rulings.get(i)?,
        })
    };
    Explained {
        decided_by: decided_by(resolved),
        client: resolved.client.clone(),
        quota: part.is_some_and(|part| part.quota),
        counters: claims.filter_map(counter).collect(),
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
