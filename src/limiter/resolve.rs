//! Which limits a request meets: descriptors in, one [`Ask`] and what to report of it out.
//!
//! The override of a descriptor goes before the rule that matches it. A rule named by another matched rule's
//! `replaces` is left out. Nothing here waits or counts.

use std::sync::Arc;

use super::ask::{Ask, Traits};
use super::key::{self, KeyMaker};
use super::request::{Descriptor, Override, Request};
use super::snapshot::{Mode, Snapshot};
use crate::domain::{Algorithm, Charge, Claim, Limit, Part, Unit};
use crate::policy::{
    AlgorithmName, Domain, How, LimitKind, OnStoreFailure, PathEntry, Rule, RuleLimit,
};

/// What became of one descriptor.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The index of the rule that matched.
    pub rule: Option<u32>,
    /// What limits it.
    pub target: Target,
}

/// What limits a descriptor.
#[derive(Clone, Debug)]
pub enum Target {
    /// Nothing.
    Nothing,
    /// A rule that says so.
    Unlimited,
    /// A part of the group.
    Part(usize),
    /// A part of the group that always fails, for the override cannot be understood and nothing else matched.
    InvalidOverride(usize),
}

/// How a claim's limit is reported.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Requests per period.
    pub requests_per_unit: u32,
    /// The unit of the period.
    pub unit: Unit,
    /// How many units make the period.
    pub unit_multiplier: u32,
    /// The limit's name.
    pub name: Option<Arc<str>>,
}

/// A request, resolved.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    /// One per descriptor, same order.
    pub descriptors: Vec<Resolved>,
    /// What to decide.
    pub ask: Ask,
    /// One per claim of the group, same order.
    pub reports: Vec<Report>,
}

/// What resolving needs beside the policies.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Makes counter keys.
    pub keys: KeyMaker,
    /// For an override that no rule gives an algorithm.
    pub default_algorithm: AlgorithmName,
}

impl Resolver {
    /// Resolves `request`, in a domain that `policy` knows.
    pub fn resolve(
        &self,
        request: &Request,
        snapshot: &Snapshot,
        policy: &Domain,
        mode: Mode,
    ) -> Resolution {
        let rules: Vec<Option<&Rule>> = request
            .descriptors
            .iter()
            .map(|descriptor| {
                let entries = descriptor.entries.iter();
                policy.find(entries.map(|e| (e.key.as_ref(), e.value.as_ref()))).map(AsRef::as_ref)
            })
            .collect();
        let mut building = Building {
            resolver: self,
            request,
            snapshot,
            policy,
            shadow: mode == Mode::Shadow,
            replaced: self.replaced(request, &rules),
            resolution: Resolution::default(),
        };
        for (descriptor, rule) in request.descriptors.iter().zip(rules) {
            let target = building.target(descriptor, rule);
            let rule = rule.map(|rule| rule.index);
            building.resolution.descriptors.push(Resolved { rule, target });
        }
        building.resolution
    }

    /// The names of the limits that other matched rules replace. A rule that a valid override stands in for does not
    /// count.
    fn replaced<'a>(&self, request: &Request, rules: &[Option<&'a Rule>]) -> Vec<&'a str> {
        let governs = |descriptor: &Descriptor, rule: &Rule| {
            let over = descriptor.limit.and_then(|over| self.override_limit(over, Some(rule)));
            over.is_none()
        };
        let pairs = request.descriptors.iter().zip(rules.iter().copied());
        let rules = pairs.filter_map(|(d, rule)| rule.filter(|rule| governs(d, rule)));
        let limits = rules.flat_map(|rule| &rule.limits);
        limits.flat_map(|limit| limit.replaces.iter().map(AsRef::as_ref)).collect()
    }

    /// The limit of an override: its numbers, the rest from the rule it stands in for.
    fn override_limit(
        &self,
        over: Override,
        rule: Option<&Rule>,
    ) -> Option<(Limit, Report, Traits)> {
        let unit = over.unit?;
        let period = unit.period(over.unit_multiplier)?;
        let model = rule.and_then(|rule| rule.limits.iter().find_map(counted));
        let requests = over.requests_per_unit;
        let algorithm = match (model.map(|(limit, _)| limit.algorithm()), self.default_algorithm) {
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
            Some(Charge::Always { .. }) => {
                Charge::Always { max_debt: Some(u64::from(requests) * 10) }
            }
            _ => Charge::Admitted,
        };
        let limit = Limit::new(requests, period, algorithm, charge).ok()?;
        let report = Report {
            requests_per_unit: requests,
            unit,
            unit_multiplier: over.unit_multiplier,
            name: None,
        };
        let traits = Traits { on_store_failure: model.and_then(|(_, on_failure)| on_failure) };
        Some((limit, report, traits))
    }
}

struct Building<'a> {
    resolver: &'a Resolver,
    request: &'a Request,
    snapshot: &'a Snapshot,
    policy: &'a Domain,
    shadow: bool,
    replaced: Vec<&'a str>,
    resolution: Resolution,
}

impl Building<'_> {
    fn target(&mut self, descriptor: &Descriptor, rule: Option<&Rule>) -> Target {
        let Some(over) = descriptor.limit else { return self.by_rule(descriptor, rule) };
        if let Some(valid) = self.resolver.override_limit(over, rule) {
            return self.by_override(descriptor, rule, valid);
        }
        match self.by_rule(descriptor, rule) {
            Target::Nothing if rule.is_none() => self.by_invalid_override(descriptor),
            target => target,
        }
    }

    fn by_rule(&mut self, descriptor: &Descriptor, rule: Option<&Rule>) -> Target {
        let Some(rule) = rule else { return Target::Nothing };
        let start = self.resolution.ask.group.claims.len();
        let mut unlimited = false;
        for (i, limit) in rule.limits.iter().enumerate() {
            if limit.name.as_deref().is_some_and(|name| self.replaced.contains(&name)) {
                continue;
            }
            match limit.kind {
                LimitKind::Unlimited => unlimited = true,
                LimitKind::Counted { limit: counted, unit, unit_multiplier, on_store_failure } => {
                    let report = Report {
                        requests_per_unit: counted.requests(),
                        unit,
                        unit_multiplier,
                        name: limit.name.clone(),
                    };
                    let tail = self.snapshot.tail(rule, i);
                    let traits = Traits { on_store_failure };
                    self.claim(descriptor, Some(rule), tail, counted, traits, report);
                }
            }
        }
        if self.resolution.ask.group.claims.len() == start {
            return if unlimited { Target::Unlimited } else { Target::Nothing };
        }
        Target::Part(self.part(start, rule.quota, rule.shadow))
    }

    fn by_override(
        &mut self,
        descriptor: &Descriptor,
        rule: Option<&Rule>,
        (limit, report, traits): (Limit, Report, Traits),
    ) -> Target {
        let start = self.resolution.ask.group.claims.len();
        self.claim(descriptor, rule, &key::tail(&limit), limit, traits, report);
        Target::Part(self.part(start, false, false))
    }

    /// A limit of zero always fails and takes part in the verdict like any other.
    fn by_invalid_override(&mut self, descriptor: &Descriptor) -> Target {
        let start = self.resolution.ask.group.claims.len();
        let period = std::time::Duration::from_secs(1);
        if let Ok(limit) = Limit::new(0, period, Algorithm::FixedWindow, Charge::Admitted) {
            let report =
                Report { requests_per_unit: 0, unit: Unit::Second, unit_multiplier: 1, name: None };
            let traits = Traits { on_store_failure: None };
            self.claim(descriptor, None, b":invalid_override", limit, traits, report);
        }
        Target::InvalidOverride(self.part(start, false, false))
    }

    fn claim(
        &mut self,
        descriptor: &Descriptor,
        rule: Option<&Rule>,
        tail: &[u8],
        limit: Limit,
        traits: Traits,
        report: Report,
    ) {
        let (entries, unmatched);
        let path = if let Some(rule) = rule {
            &rule.path
        } else {
            entries = descriptor.entries.iter().map(|e| (e.key.as_ref(), e.value.as_ref()));
            unmatched = self.policy.sensitive(entries).map(by_value).collect::<Vec<_>>();
            &unmatched
        };
        let key = self.resolver.keys.key(&self.request.domain, &descriptor.entries, path, tail);
        self.resolution.ask.group.claims.push(Claim { key, limit, hits: descriptor.hits });
        self.resolution.ask.traits.push(traits);
        self.resolution.reports.push(report);
    }

    fn part(&mut self, start: usize, quota: bool, shadow: bool) -> usize {
        let group = &mut self.resolution.ask.group;
        let claims = start..group.claims.len();
        group.parts.push(Part { quota, shadow: shadow || self.shadow, claims });
        group.parts.len() - 1
    }
}

/// An entry that counts by its value.
fn by_value(sensitive: bool) -> PathEntry {
    let (key, how) = (Arc::default(), How::Any);
    PathEntry { key, how, share: false, sensitive, value_to_metric: false }
}

/// The limit and failure mode of a limit that counts.
fn counted(limit: &RuleLimit) -> Option<(&Limit, Option<OnStoreFailure>)> {
    match &limit.kind {
        LimitKind::Unlimited => None,
        LimitKind::Counted { limit, on_store_failure, .. } => Some((limit, *on_store_failure)),
    }
}
