//! The limits that a request meets: descriptors in, one [`Ask`] out.
//!
//! The client that a descriptor is goes first, by its own limits and those of its plan, then the
//! override it brings along, then the rule that matches it. A limit named by another matched rule's
//! `replaces` is left out. Nothing here waits or counts.

mod build;
mod clients;
mod counters;
pub(super) mod plan;
pub(super) mod resolved;
mod wanted;

use std::sync::Arc;

use smallvec::SmallVec;

use self::build::Building;
pub use self::clients::Clients;
pub use self::counters::{Counters, Uncounted};
pub use self::plan::{ClientPlan, MissingPlan};
pub use self::resolved::{Resolved, Target};
use super::ask::{Ask, Traits};
use super::key::KeyMaker;
use super::mode::Mode;
use super::redact::Sensitivity;
use super::report::Report;
use super::request::{Entry, Override, Request};
use super::snapshot::{Snapshot, SnapshotRef};
use crate::domain::{Algorithm, Charge, Limit, Unit};
use crate::limits::name::Value;
use crate::limits::{Client, ClientName, Entries};
use crate::policy::{
    AlgorithmName, Calendar, ChargeName, Defaults, Domain, LimitKind, OnStoreFailure, Rule,
    RuleLimit,
};
use crate::telemetry::escape::escape;
use crate::telemetry::metrics::LimitOf;

/// A request, resolved.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    /// The claims to decide.
    pub ask: Ask,
}

impl Resolution {
    /// One per descriptor, same order.
    pub fn descriptors(&self) -> &[Resolved] {
        &self.ask.lists.resolved
    }
}

/// The match of one descriptor.
struct Match<'a> {
    rule: Option<&'a Rule>,
    /// The client that goes before the rule.
    client: Option<Arc<Client>>,
    plan: ClientPlan,
}

/// A limit with all that goes with it.
type Ready = (Limit, Report, Traits);

/// Resolves requests by policies, which are given with each request.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Makes counter keys.
    pub keys: KeyMaker,
    /// For an override or a client that no rule gives an algorithm or a charge, and whether all
    /// are quotas.
    pub defaults: Defaults,
    /// Limits of single clients.
    pub clients: Clients,
}

impl Resolver {
    /// Resolves `request`; `policy` is that of its domain, if there is one.
    pub fn resolve(
        &self,
        request: &Request,
        snapshot: &SnapshotRef,
        policy: Option<&Domain>,
        mode: Mode,
    ) -> Resolution {
        let may_be_client = self.clients.directory().may_have_domain(request.domain);
        let clients = may_be_client.then_some(&self.clients);
        let matches: SmallVec<[Match<'_>; 2]> = request
            .descriptors
            .iter()
            .map(|descriptor| {
                let entries = &descriptor.entries;
                let found = clients
                    .and_then(|clients| clients.find(request.domain, entries, self.keys.hasher()));
                let (client, plan) = found.unwrap_or_default();
                Match { rule: rule_of(policy, entries), client, plan }
            })
            .collect();
        let mut building = Building {
            resolver: self,
            request,
            snapshot,
            policy,
            shadow: mode == Mode::Shadow,
            replaced: self.replaced(request, &matches),
            resolution: Resolution { ask: Ask::with_room() },
        };
        for (i, (descriptor, matched)) in request.descriptors.iter().zip(matches).enumerate() {
            let resolved = building.resolved(i, descriptor, matched);
            building.resolution.ask.lists.resolved.push(resolved);
        }
        building.resolution
    }

    /// The names of the limits that matched rules replace, each with the descriptor whose rule says
    /// so. Where a valid override stands in for the rule, the rule says nothing; where a client
    /// does, it still does.
    fn replaced<'a>(&self, request: &Request, matches: &[Match<'a>]) -> Vec<(usize, &'a str)> {
        let mut names = Vec::new();
        for (i, (descriptor, matched)) in request.descriptors.iter().zip(matches).enumerate() {
            let Some(rule) = matched.rule else { continue };
            let valid = |over| self.override_limit(over, Some(rule)).is_some();
            if matched.client.is_none() && descriptor.limit.is_some_and(valid) {
                continue;
            }
            let limits = rule.limits.iter().flat_map(|limit| &limit.replaces);
            names.extend(limits.map(|name| (i, name.as_ref())));
        }
        names
    }

    /// The descriptor of the client `name` as people may see it, such as `api_key=acme`.
    pub(crate) fn client_title(&self, name: &ClientName, snapshot: &Snapshot) -> String {
        let hidden = self.hidden_name(name, snapshot);
        let entries = &hidden.as_ref().unwrap_or(name).entries;
        let pairs =
            entries.pairs().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
        pairs.collect::<Vec<_>>().join("|")
    }

    /// The name under which a client is stored by the policies of `snapshot`, with hashes of
    /// sensitive values; none: as it is.
    pub fn hidden_name(&self, name: &ClientName, snapshot: &Snapshot) -> Option<ClientName> {
        let policy = snapshot.policies.domain(name.domain.as_bytes())?;
        if !policy.marks_sensitive() {
            return None;
        }
        let entries = entries_of(name);
        let entries_sensitive: Vec<bool> =
            Sensitivity::of(rule_of(Some(policy), &entries), Some(policy))
                .of_entries(&entries)
                .zip(name.entries.iter())
                .map(|(sensitive, (_, value))| sensitive && !value.hashed)
                .collect();
        if !entries_sensitive.contains(&true) {
            return None;
        }
        let hash = |((_, value), hides): ((&[u8], Value<'_>), &bool)| {
            hides.then(|| self.keys.hasher().hash(value.bytes))
        };
        let hashes: Vec<Option<String>> =
            name.entries.iter().zip(&entries_sensitive).map(hash).collect();
        let entries = name.entries.iter().zip(&hashes).map(|((key, value), hash)| match hash {
            Some(hash) => (key, Value { bytes: hash.as_bytes(), hashed: true }),
            None => (key, value),
        });
        Some(ClientName { domain: Arc::clone(&name.domain), entries: Entries::of(entries) })
    }

    /// The client of this name in memory, in whichever form it is stored.
    pub fn stored_client(&self, name: &ClientName) -> Option<Arc<Client>> {
        let directory = self.clients.directory();
        if name.entries.has_hashes() {
            return directory.get(name);
        }
        let hash = |value: &[u8]| self.keys.hasher().hash(value);
        directory.find_in_any_form(name.domain.as_bytes(), &name.entries.pairs(), hash)
    }

    /// A limit of this period with the windows of its calendar, if it follows one: that of its
    /// rule, `theirs`, where the period is the same, otherwise that of the settings.
    fn placed(&self, limit: Limit, period: (Unit, u32), theirs: Option<Calendar>) -> Limit {
        if limit.algorithm() != Algorithm::FixedWindow {
            return limit;
        }
        let theirs = theirs.filter(|calendar| (calendar.unit(), 1) == period);
        match theirs.or_else(|| self.defaults.calendar(period)) {
            Some(calendar) => limit.on(calendar.windows(self.clients.now())),
            None => limit,
        }
    }

    /// The limit of an override: its numbers, the rest from the rule it stands in for.
    fn override_limit(&self, over: Override, rule: Option<&Rule>) -> Option<Ready> {
        let unit = over.unit?;
        let of_request = unit.period(over.unit_multiplier)?;
        let model = rule.and_then(first_counted);
        let requests = over.requests_per_unit;
        let theirs = model.map(|(limit, _)| limit.algorithm());
        let algorithm = match (theirs, self.defaults.algorithm) {
            (Some(Algorithm::TokenBucket { .. }), _) | (None, AlgorithmName::TokenBucket) => {
                Algorithm::TokenBucket { burst: requests }
            }
            (Some(other), _) => other,
            (None, AlgorithmName::SlidingWindow) => {
                Algorithm::SlidingWindow { slots: Algorithm::DEFAULT_SLOTS }
            }
            (None, AlgorithmName::FixedWindow) => Algorithm::FixedWindow,
        };
        let charge = match model.map(|(limit, _)| limit.charge()) {
            Some(Charge::Always { .. }) => ChargeName::Always.charge(None, requests),
            Some(charge) => charge,
            None => self.defaults.charge.charge(None, requests),
        };
        let period = model.filter(|(limit, _)| limit.is_concurrency());
        let period = period.map_or(of_request, |(limit, _)| limit.period());
        let limit = Limit::new(requests, period, algorithm, charge).ok()?;
        let limit = self.placed(limit, (unit, over.unit_multiplier), rule.and_then(calendar_of));
        let report = Report {
            requests_per_unit: requests,
            unit,
            unit_multiplier: over.unit_multiplier,
            name: None,
            of: LimitOf::Override,
            concurrent: limit.is_concurrency(),
        };
        let on_store_failure = model.and_then(|(_, on_failure)| on_failure);
        let traits = Traits { on_store_failure, lease: None };
        Some((limit, report, traits))
    }
}

/// The entries of a client, hashes as if they were values.
fn entries_of(name: &ClientName) -> Vec<Entry<'_>> {
    name.entries.pairs().map(|(key, value)| Entry { key, value }).collect()
}

/// The rule of a descriptor with these entries.
fn rule_of<'a>(policy: Option<&'a Domain>, entries: &[Entry]) -> Option<&'a Rule> {
    policy?.find(pairs(entries)).map(AsRef::as_ref)
}

fn pairs<'a>(entries: &'a [Entry<'_>]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    entries.iter().map(|entry| (entry.key, entry.value))
}

/// The calendar of the first limit that counts.
fn calendar_of(rule: &Rule) -> Option<Calendar> {
    let calendar = |limit: &RuleLimit| match limit.kind {
        LimitKind::Unlimited => None,
        LimitKind::Counted { calendar, .. } => Some(calendar),
    };
    rule.limits.iter().find_map(calendar).flatten()
}

/// The first limit of a rule that counts, and its failure mode.
fn first_counted(rule: &Rule) -> Option<(&Limit, Option<OnStoreFailure>)> {
    rule.limits.iter().find_map(counted)
}

/// The limit and failure mode of a limit that counts.
fn counted(limit: &RuleLimit) -> Option<(&Limit, Option<OnStoreFailure>)> {
    match &limit.kind {
        LimitKind::Unlimited => None,
        LimitKind::Counted { limit, on_store_failure, .. } => Some((limit, *on_store_failure)),
    }
}
