//! The clients of requests: which one a descriptor is, its plan, and the limits that both give it.

use std::fmt;
use std::sync::Arc;

use super::plan::{ClientPlan, MissingPlan};
use super::{Ready, Resolver, calendar_of, entries_of, first_counted, rule_of};
use crate::domain::{Clock, Limit, LimitError, Timestamp};
use crate::limiter::ask::Traits;
use crate::limiter::key::SensitiveHasher;
use crate::limiter::report::{LimitName, Report};
use crate::limiter::request::Entry;
use crate::limiter::snapshot::Snapshot;
use crate::limits::directory::Directory;
use crate::limits::plans::PlanRef;
use crate::limits::{Client, ClientLimit, ClientName, Model};
use crate::policy::{OnStoreFailure, Rule};
use crate::telemetry::metrics::LimitOf;

/// The clients that have not expired.
#[derive(Clone)]
pub struct Clients {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("len", &self.directory.len()).finish_non_exhaustive()
    }
}

impl Clients {
    /// Those of `directory`; `clock` says which of them have expired.
    pub const fn new(directory: Arc<Directory>, clock: Arc<dyn Clock>) -> Self {
        Self { directory, clock }
    }

    /// All of them, expired or not.
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns true if `domain` has clients.
    pub fn has_domain(&self, domain: &[u8]) -> bool {
        self.directory.has_domain(domain)
    }

    /// The client of a descriptor, unless the rule goes before it, and the client's plan. The rule
    /// does where the client has neither limits nor a plan that is there.
    pub(super) fn find(
        &self,
        domain: &[u8],
        entries: &[Entry],
        hasher: &SensitiveHasher,
    ) -> Option<(Option<Arc<Client>>, ClientPlan)> {
        let entries = entries.iter().map(|entry| (entry.key, entry.value));
        let hash = |value: &[u8]| hasher.hash(value);
        let client = self.directory.find_in_any_form(domain, &entries, hash)?;
        if client.expires_at.is_some() && client.is_expired(self.now()) {
            return None;
        }
        let plan = self.plan_of(&client);
        let limits_it = !client.limits.is_empty() || plan.in_force().is_some();
        Some((limits_it.then_some(client), plan))
    }

    fn plan_of(&self, client: &Arc<Client>) -> ClientPlan {
        let Some(plan) = &client.plan else { return ClientPlan::None };
        let then = plan.ends_at.is_some() && plan.has_ended(self.now());
        let name = if then { plan.then.as_ref() } else { Some(&plan.name) };
        let Some(name) = name else { return ClientPlan::None };
        match self.directory.plans().find(name) {
            Some(plan) => ClientPlan::InForce(plan),
            None => ClientPlan::Missing(MissingPlan::new(client, then)),
        }
    }
}

impl Resolver {
    /// The limit from which those of a client take what they leave open: the first that counts of
    /// its rule in `snapshot`.
    pub(crate) fn model_of(&self, name: &ClientName, snapshot: &Snapshot) -> Model {
        let policy = snapshot.policies.domain(name.domain.as_bytes());
        let rule = rule_of(policy.map(AsRef::as_ref), &entries_of(name));
        self.model(rule.and_then(first_counted))
    }

    fn model(&self, first: Option<(&Limit, Option<OnStoreFailure>)>) -> Model {
        Model { limit: first.map(|(limit, _)| *limit), defaults: self.defaults }
    }

    /// The limits of a client, then those of its plan in whose place it has none, with what they
    /// leave open taken from `rule`; empty: unlimited. An error: the rule makes it impossible.
    pub(super) fn client_limits<'a>(
        &self,
        client: &'a Client,
        plan: Option<&'a PlanRef>,
        rule: Option<&'a Rule>,
    ) -> impl Iterator<Item = Result<Ready, LimitError>> {
        let model = rule.and_then(first_counted);
        let of_rule = self.model(model);
        let calendar = rule.and_then(calendar_of);
        let own = client.limits.iter().map(|limit| (limit, limit.name.clone().map(LimitName::Own)));
        let of_plan = plan.into_iter().flat_map(move |plan| of_plan(client, plan));
        let rates = own.chain(of_plan).filter_map(|(limit, name)| Some((limit.rate?, name)));
        rates.map(move |(rate, name)| {
            let counted = rate.limit(&of_rule)?;
            let report = Report {
                requests_per_unit: rate.requests_per_unit,
                unit: rate.unit,
                unit_multiplier: rate.unit_multiplier,
                name,
                of: LimitOf::Client,
                concurrent: counted.is_concurrency(),
            };
            let on_store_failure =
                rate.on_store_failure.or_else(|| model.and_then(|(_, failure)| failure));
            let limit = self.placed(counted, (rate.unit, rate.unit_multiplier), calendar);
            Ok((limit, report, Traits { on_store_failure, lease: None }))
        })
    }
}

/// The limits of a plan that the client does not replace by own ones.
fn of_plan<'a>(
    client: &'a Client,
    plan: &'a PlanRef,
) -> impl Iterator<Item = (&'a ClientLimit, Option<LimitName>)> {
    let replaced =
        |limit: &ClientLimit| client.limits.iter().any(|own| own.may_share_counter(limit));
    plan.limits.iter().enumerate().filter(move |(_, limit)| !replaced(limit)).map(|(i, limit)| {
        let name = limit.name.is_some().then(|| LimitName::Plan(plan.clone(), i));
        (limit, name)
    })
}
