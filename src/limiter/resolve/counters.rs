//! The counters of one descriptor, by name: where a request with it would count. Nothing here
//! counts.

use super::{Resolution, Resolved, Resolver, Target, rule_of};
use crate::domain::Key;
use crate::limiter::key::shared_pattern;
use crate::limiter::mode::Mode;
use crate::limiter::request::{Descriptor, Request};
use crate::limiter::snapshot::SnapshotRef;

/// The counters of a descriptor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counters {
    /// Their keys.
    pub keys: Vec<Key>,
    /// The reason why there are none.
    pub uncounted: Option<Uncounted>,
    /// The pattern whose values all count in them.
    pub shared: Option<String>,
}

/// The reason why a descriptor counts nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Uncounted {
    /// No policy and no client names the domain.
    UnknownDomain,
    /// No rule with a limit matches, and it is no client.
    NoRule,
    /// Its client or its rule is unlimited.
    Unlimited,
    /// No rule matches, and the limit that the request brings along cannot be understood.
    InvalidOverride,
}

impl Resolver {
    /// The counters in which a request with `descriptor` would count, as if limits were enforced.
    pub fn counters(&self, request: &Request, snapshot: &SnapshotRef) -> Counters {
        let policy = snapshot.policies.domain(request.domain).map(AsRef::as_ref);
        let resolution = self.resolve(request, snapshot, policy, Mode::Enforce);
        let known = policy.is_some() || self.clients.has_domain(request.domain);
        let uncounted = uncounted(&resolution, known);
        let claims = resolution.ask.group().claims.iter().filter(|_| uncounted.is_none());
        let by_rule = |(resolved, _): &(&Resolved, &Descriptor)| {
            resolved.client.is_none() && uncounted.is_none()
        };
        let mut ruled = resolution.descriptors().iter().zip(&request.descriptors).filter(by_rule);
        let shared = ruled.find_map(|(_, descriptor)| {
            rule_of(policy, &descriptor.entries)?.path.iter().find_map(shared_pattern)
        });
        Counters {
            keys: claims.map(|claim| claim.key.clone()).collect(),
            uncounted,
            shared: shared.map(str::to_owned),
        }
    }
}

fn uncounted(resolution: &Resolution, domain_known: bool) -> Option<Uncounted> {
    match resolution.descriptors().first().map(|resolved| &resolved.target) {
        Some(Target::Part(_)) => None,
        Some(Target::Unlimited) => Some(Uncounted::Unlimited),
        Some(Target::InvalidOverride(_)) => Some(Uncounted::InvalidOverride),
        Some(Target::Nothing) | None if domain_known => Some(Uncounted::NoRule),
        Some(Target::Nothing) | None => Some(Uncounted::UnknownDomain),
    }
}
