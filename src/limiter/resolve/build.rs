//! Puts a resolution together, descriptor by descriptor: which of client, override and rule limits
//! it, and the claims and the part that follow. Which of them match is found before.

use std::borrow::Cow;

use super::wanted::{Use, Wanted, slot_of, terms_of};
use super::{ClientPlan, Match, Ready, Resolution, Resolved, Resolver, Target, counted};
use crate::domain::{Algorithm, Charge, Claim, Hits, Key, Limit, Part, Unit};
use crate::limiter::ask::Traits;
use crate::limiter::holds::unnamed;
use crate::limiter::key::{self, Sharing};
use crate::limiter::redact::Sensitivity;
use crate::limiter::report::{LimitName, Report};
use crate::limiter::request::{Descriptor, Request};
use crate::limiter::snapshot::SnapshotRef;
use crate::limits::Client;
use crate::limits::plans::PlanRef;
use crate::policy::{Domain, LimitKind, Rule, RuleLimit};
use crate::telemetry::metrics::LimitOf;

/// A resolution in the making.
pub(super) struct Building<'a, 'm> {
    pub(super) resolver: &'a Resolver,
    pub(super) request: &'a Request<'m>,
    pub(super) snapshot: &'a SnapshotRef,
    pub(super) policy: Option<&'a Domain>,
    pub(super) shadow: bool,
    pub(super) replaced: Vec<(usize, &'a str)>,
    pub(super) resolution: Resolution,
}

impl<'a> Building<'a, '_> {
    /// Resolves the `i`-th descriptor and adds what it claims.
    pub(super) fn resolved(
        &mut self,
        i: usize,
        descriptor: &Descriptor<'_>,
        Match { rule, client, plan }: Match<'_>,
    ) -> Resolved {
        // Limits were checked when the client was stored; if the rule has made them impossible
        // since, it goes by the rule.
        let of_client = client
            .as_deref()
            .and_then(|client| self.by_client(i, descriptor, rule, client, plan.in_force()));
        if let Some(target) = of_client {
            let rule = rule.map(|rule| self.snapshot.rule(rule));
            return Resolved { rule, client, plan, overridden: false, target };
        }
        let brought = descriptor.limit.map(|over| self.resolver.override_limit(over, rule));
        let overridden = matches!(brought, Some(Some(_)));
        let target = match brought {
            Some(Some(valid)) => self.by_override(descriptor, rule, valid),
            Some(None) => match self.by_rule(descriptor, rule) {
                Target::Nothing if rule.is_none() => self.by_invalid_override(descriptor),
                target => target,
            },
            None => self.by_rule(descriptor, rule),
        };
        let rule = rule.map(|rule| self.snapshot.rule(rule));
        let plan = match plan {
            ClientPlan::InForce(_) => ClientPlan::None,
            plan => plan,
        };
        Resolved { rule, client: None, plan, overridden, target }
    }

    /// A client is not replaced by its own rule: that stands for the client's limits. None: one of
    /// them is impossible.
    fn by_client(
        &mut self,
        i: usize,
        descriptor: &Descriptor<'_>,
        rule: Option<&Rule>,
        client: &Client,
        plan: Option<&PlanRef>,
    ) -> Option<Target> {
        let of_plan = plan.into_iter().flat_map(|plan| plan.limits.iter());
        if client.limits.iter().chain(of_plan).all(|limit| limit.rate.is_none()) {
            return Some(Target::Unlimited);
        }
        let start = self.resolution.ask.len();
        for limit in self.resolver.client_limits(client, plan, rule) {
            let Ok((limit, report, traits)) = limit else {
                self.resolution.ask.truncate(start);
                return None;
            };
            let named =
                |&(by, name): &(usize, &str)| by != i && report.name.as_deref() == Some(name);
            if !self.replaced.iter().any(named) {
                let tail = self.tail_of_rule(rule, &limit);
                let tail = tail.map_or_else(|| key::tail(&limit).into(), Cow::Borrowed);
                let counter = Counted { rule, sharing: Sharing::Own, tail: &tail };
                let terms = terms_of(rule, &limit);
                self.claim(descriptor, counter, limit, (traits, terms), report);
            }
        }
        if self.resolution.ask.len() == start {
            return Some(Target::Nothing);
        }
        let quota = client.quota.unwrap_or_else(|| rule.is_some_and(|rule| rule.quota));
        let shadow = client.shadow.unwrap_or_else(|| rule.is_some_and(|rule| rule.shadow));
        Some(Target::Part(self.part(start, quota, shadow)))
    }

    /// The end of a key that has been made for the rule, if its limit counts as this one does.
    fn tail_of_rule(&self, rule: Option<&Rule>, limit: &Limit) -> Option<&'a [u8]> {
        let rule = rule?;
        let alike =
            |own: &RuleLimit| counted(own).is_some_and(|(own, _)| key::is_alike(own, limit));
        Some(self.snapshot.tail(rule, rule.limits.iter().position(alike)?))
    }

    fn by_rule(&mut self, descriptor: &Descriptor<'_>, rule: Option<&Rule>) -> Target {
        let Some(rule) = rule else { return Target::Nothing };
        let start = self.resolution.ask.len();
        let mut unlimited = false;
        for (i, limit) in rule.limits.iter().enumerate() {
            let named = |(_, name): &(usize, &str)| limit.name.as_deref() == Some(*name);
            if self.replaced.iter().any(named) {
                continue;
            }
            match &limit.kind {
                LimitKind::Unlimited => unlimited = true,
                &LimitKind::Counted {
                    limit: counted,
                    unit,
                    unit_multiplier,
                    on_store_failure,
                    lease,
                    calendar,
                    ..
                } => {
                    let counted = self.resolver.placed(counted, (unit, unit_multiplier), calendar);
                    let name = limit.name.is_some();
                    let report = Report {
                        requests_per_unit: counted.requests(),
                        unit,
                        unit_multiplier,
                        name: name.then(|| LimitName::Rule(self.snapshot.rule(rule), i)),
                        of: LimitOf::Rule(i),
                        concurrent: counted.is_concurrency(),
                    };
                    let tail = self.snapshot.tail(rule, i);
                    let traits = Traits { on_store_failure, lease };
                    let counter = Counted { rule: Some(rule), sharing: Sharing::Rule, tail };
                    self.claim(descriptor, counter, counted, (traits, Some((i, limit))), report);
                }
            }
        }
        if self.resolution.ask.len() == start {
            return if unlimited { Target::Unlimited } else { Target::Nothing };
        }
        Target::Part(self.part(start, rule.quota, rule.shadow))
    }

    fn by_override(
        &mut self,
        descriptor: &Descriptor<'_>,
        rule: Option<&Rule>,
        (limit, report, traits): Ready,
    ) -> Target {
        let start = self.resolution.ask.len();
        let tail = &key::override_tail(&limit);
        let counter = Counted { rule, sharing: Sharing::Rule, tail };
        let terms = terms_of(rule, &limit);
        self.claim(descriptor, counter, limit, (traits, terms), report);
        Target::Part(self.part(start, false, false))
    }

    /// A limit of zero always fails and takes part in the verdict like any other.
    fn by_invalid_override(&mut self, descriptor: &Descriptor) -> Target {
        let start = self.resolution.ask.len();
        let period = std::time::Duration::from_secs(1);
        if let Ok(limit) = Limit::new(0, period, Algorithm::FixedWindow, Charge::Admitted) {
            let report = Report {
                requests_per_unit: 0,
                unit: Unit::Second,
                unit_multiplier: 1,
                name: None,
                of: LimitOf::Override,
                concurrent: false,
            };
            let traits = Traits::default();
            let tail = b":invalid_override";
            let counter = Counted { rule: None, sharing: Sharing::Rule, tail };
            self.claim(descriptor, counter, limit, (traits, None), report);
        }
        Target::InvalidOverride(self.part(start, false, false))
    }

    fn claim(
        &mut self,
        descriptor: &Descriptor<'_>,
        Counted { rule, sharing, tail }: Counted<'_>,
        limit: Limit,
        (traits, terms): (Traits, Option<(usize, &RuleLimit)>),
        report: Report,
    ) {
        let (limit, report) = self.scaled(rule, limit, report);
        let key = self.key(descriptor, rule, sharing, tail);
        let learned = |limit: usize| rule.and_then(|rule| self.snapshot.learned(rule, limit));
        let wanted = Wanted { descriptor, limit: &limit, terms };
        let ask = &mut self.resolution.ask;
        let (hits, hits_use) = wanted.hits(ask, learned);
        let slot = match &hits_use {
            Use::Unnamed(terms) => unnamed::slots(&key, terms).map(|slot| (slot, report.clone())),
            _ => None,
        };
        ask.push(Claim { key, limit, hits, lease: None }, traits, report);
        match hits_use {
            Use::AtOnce | Use::Unnamed(_) => {}
            Use::Held(basis) => {
                let (at, terms) = terms.map_or((0, None), |(at, own)| (at, own.hold().copied()));
                ask.note_held(terms, at, basis);
            }
            Use::Reported(terms, cost) => ask.note_reported(terms, cost),
        }
        if let Some(((key, limit), report)) = slot {
            let hits = slot_of(Hits::Take(1), ask);
            ask.push(Claim { key, limit, hits, lease: None }, traits, report);
            ask.note_unnamed();
        }
        if let Some(rule) = rule.and_then(|rule| self.snapshot.signal(rule)) {
            ask.note_rule(rule);
        }
    }

    /// The key of the counter that `tail` names. The entries stand in it as the matched rule says,
    /// otherwise by value.
    fn key(
        &self,
        descriptor: &Descriptor<'_>,
        rule: Option<&Rule>,
        sharing: Sharing,
        tail: &[u8],
    ) -> Key {
        let (keys, entries) = (&self.resolver.keys, &descriptor.entries);
        match Sensitivity::of(rule, self.policy) {
            Sensitivity::Rule(rule) => keys.key(self.snapshot.stem(rule), entries, sharing, tail),
            other => {
                keys.key_by_values(self.request.domain, entries, other.of_entries(entries), tail)
            }
        }
    }

    /// The part of a limit that is in force. What stands in for a limit of the rule is turned down
    /// with it: both end at the same upstream.
    fn scaled(&self, rule: Option<&Rule>, limit: Limit, report: Report) -> (Limit, Report) {
        let clients = &self.resolver.clients;
        let dial = rule.map(|rule| self.snapshot.dial(rule));
        let Some((per_mille, _)) = dial.and_then(|dial| dial.in_force(|| clients.now())) else {
            return (limit, report);
        };
        let limit = limit.scaled(per_mille);
        (limit, Report { requests_per_unit: limit.requests(), ..report })
    }

    fn part(&mut self, start: usize, quota: bool, shadow: bool) -> Part {
        let quota = quota || self.resolver.defaults.quota;
        self.resolution.ask.close_part(start, quota, shadow || self.shadow)
    }
}

/// The counter of a claim.
struct Counted<'a> {
    rule: Option<&'a Rule>,
    sharing: Sharing,
    tail: &'a [u8],
}
