//! `SetPlan`: one plan for many clients, all of a call or none.
//!
//! Clients are found in memory and written as long as the registry has them like this. Where
//! another writer was faster, the call begins anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tonic::Status;

use super::{Act, MOST, missing, no_such_plan, stale};
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Registry, RegistryError};
use crate::domain::Timestamp;
use crate::edge::admin::page::PageToken;
use crate::edge::admin::service::{corrupt, failed};
use crate::edge::admin::validate::Validator;
use crate::edge::admin::violations::violation;
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::ManageClientsResponse;
use crate::edge::pb::tollgate::v1::manage_clients_request::SetPlan;
use crate::limits::directory::{Directory, Page};
use crate::limits::{Client, ClientName, Membership, PlanKey, PlanName};
use crate::store::LimitStore;

/// The most clients that are looked at under one lock, as writers wait for it.
const SCAN: usize = 1_000;

/// The attempts at a write while others change the same clients.
const MAX_RACES: usize = 8;

/// A sound request.
struct Wanted<'a> {
    domain: Arc<str>,
    plan: Arc<Membership>,
    /// Those that are named, with the state that they must have and their fields; empty: all.
    named: Vec<(ClientName, Expect, String)>,
    labels: &'a BTreeMap<String, String>,
    from_plan: &'a str,
    size: usize,
    token: Option<PageToken>,
}

/// The clients of a call.
#[derive(Default)]
struct Chosen {
    clients: Vec<Arc<Client>>,
    /// More clients may follow.
    more: bool,
}

impl<R: Registry, S: LimitStore> Act<'_, R, S> {
    pub(super) async fn set_plan(self, request: &SetPlan) -> Result<ManageClientsResponse, Status> {
        let wanted = self.wanted_plan(request)?;
        self.check_named_plans(&wanted).await?;
        self.admin.read_once().await?;
        let mut races = 0;
        loop {
            // Clients that this replica has not heard of would be left out.
            self.admin.caught_up().await?;
            let chosen = self.chosen(&wanted).await?;
            if self.validate_only || chosen.clients.is_empty() {
                return Ok(answer(&chosen, self.admin.revision()));
            }
            match self.give(&wanted, &chosen.clients).await? {
                Ok(revision) => return Ok(answer(&chosen, revision)),
                Err(RegistryError::Conflict { .. }) if races < MAX_RACES => races += 1,
                Err(RegistryError::Conflict { found, .. }) => {
                    return Err(stale(found, "set_plan.clients"));
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    fn wanted_plan<'r>(&self, request: &'r SetPlan) -> Result<Wanted<'r>, Status> {
        let mut validator = self.validator();
        let domain = validator.domain(&request.domain, "set_plan.domain");
        if request.plan.is_empty() {
            validator.violations.add("set_plan.plan", "is required: the name of a plan");
        }
        let like = pb::Client {
            plan: request.plan.clone(),
            plan_expires_at: request.plan_expires_at,
            plan_then: request.plan_then.clone(),
            ..pb::Client::default()
        };
        let plan = validator.membership(&like, "set_plan").ok().flatten();
        for (field, found) in
            [("page_size", request.page_size as usize), ("clients", request.clients.len())]
        {
            if found > MOST {
                let expected = format!("found {found}, at most {MOST}");
                validator.violations.add(format!("set_plan.{field}"), expected);
            }
        }
        let token = (!request.page_token.is_empty()).then(|| PageToken::read(&request.page_token));
        let fits = |token: &PageToken| {
            *token.after.domain == *request.domain && request.clients.is_empty()
        };
        if token.as_ref().is_some_and(|token| !token.as_ref().is_some_and(fits)) {
            let expected = "is no next_page_token of this call; leave it out to begin again";
            validator.violations.add("set_plan.page_token", expected);
        }
        let named = self.named(request, &mut validator);
        validator.violations.check()?;
        let size = if request.page_size == 0 { MOST } else { request.page_size as usize };
        let both = domain.zip(plan).ok_or_else(|| violation("set_plan", "is wrong"));
        let (labels, from_plan) = (&request.labels, &*request.from_plan);
        both.map(|(domain, plan)| Wanted {
            domain,
            plan: Arc::new(plan),
            named,
            labels,
            from_plan,
            size,
            token: token.flatten(),
        })
    }

    /// The clients that a request names, with their fields.
    fn named(
        &self,
        request: &SetPlan,
        validator: &mut Validator<'_>,
    ) -> Vec<(ClientName, Expect, String)> {
        let mut named = Vec::with_capacity(request.clients.len());
        let mut seen = HashSet::with_capacity(request.clients.len());
        for (i, name) in request.clients.iter().take(MOST).enumerate() {
            let at = format!("set_plan.clients[{i}]");
            let mut name = name.clone();
            if name.domain.is_empty() {
                name.domain.clone_from(&request.domain);
            } else if name.domain != request.domain {
                validator.violations.add(format!("{at}.domain"), "is not that of the call");
            }
            let Some((name, expect)) = validator.client_name(Some(name), &at) else { continue };
            if !seen.insert(self.hidden(&name)) {
                validator.violations.add(&at, "is named twice");
            }
            named.push((name, expect, at));
        }
        named
    }

    async fn check_named_plans(
        &self,
        Wanted { domain, plan, .. }: &Wanted<'_>,
    ) -> Result<(), Status> {
        for (field, name) in ["plan", "plan_then"].into_iter().zip(plan.names()) {
            let key = PlanKey { domain: Arc::clone(domain), name: name.as_str().into() };
            if !self.has_plan(&key).await? {
                return Err(violation(&format!("set_plan.{field}"), no_such_plan(&key)));
            }
        }
        Ok(())
    }

    async fn chosen(&self, wanted: &Wanted<'_>) -> Result<Chosen, Status> {
        let now = self.admin.now();
        if wanted.named.is_empty() {
            let directory = self.admin.shared().resolver.clients.directory();
            return Ok(by_filters(directory, wanted, now).await);
        }
        let mut clients = Vec::with_capacity(wanted.named.len());
        for (name, expect, at) in &wanted.named {
            let there = self.admin.shared().resolver.stored_client(name);
            let client =
                there.filter(|client| !client.is_expired(now)).ok_or_else(|| missing(at))?;
            if matches!(expect, Expect::Revision(revision) if *revision != client.revision) {
                return Err(stale(Some(client.revision), &format!("{at}.etag")));
            }
            if wanted.meets(&client, now) {
                clients.push(client);
            }
        }
        Ok(Chosen { clients, more: false })
    }

    /// Writes the clients with the plan, and returns the revision of the write.
    async fn give(
        &self,
        wanted: &Wanted<'_>,
        clients: &[Arc<Client>],
    ) -> Result<Result<u64, RegistryError>, Status> {
        let updated_at = self.admin.now();
        let (mut attempt, mut changes) =
            (Attempt::by(&self.who), Vec::with_capacity(clients.len()));
        for client in clients {
            let limits = client.limits.iter().filter(|limit| limit.rate.is_some()).cloned();
            let after = Client {
                limits: limits.collect(),
                plan: Some(Arc::clone(&wanted.plan)),
                updated_at,
                ..Client::clone(client)
            };
            let title = audit::client_title(self.admin.shared(), &client.name);
            let state = audit::client_state(Some(&after));
            attempt = attempt.and("set_plan", title, state, audit::client_record);
            let value = Some(after.to_record().map_err(|error| corrupt(&error))?);
            let expect = Expect::Revision(client.revision);
            changes.push(Change { key: client.name.record_key(), expect, value });
        }
        let written = self.admin.write(attempt, changes).await;
        Ok(written.map(|written| written.mark.revision))
    }
}

impl Wanted<'_> {
    /// True if the client meets the filters and does not have the plan yet.
    fn meets(&self, client: &Client, now: Timestamp) -> bool {
        let own = client.labels.as_deref();
        let has = |(key, value)| own.is_some_and(|own| own.get(key) == Some(value));
        let plan = client.plan.as_deref();
        let current = || plan.and_then(|plan| plan.at(now)).map(PlanName::as_str);
        !client.is_expired(now)
            && plan != Some(&self.plan)
            && (self.from_plan.is_empty() || current() == Some(self.from_plan))
            && self.labels.iter().all(has)
    }
}

/// The first clients that meet the filters. Every [`SCAN`] clients other tasks get their turn.
async fn by_filters(directory: &Directory, wanted: &Wanted<'_>, now: Timestamp) -> Chosen {
    let mut chosen = Chosen::default();
    let mut after = wanted.token.as_ref().map(|token| token.after.clone());
    loop {
        let Page { clients, more, .. } = directory.page(Some(&wanted.domain), after.as_ref(), SCAN);
        after = clients.last().map(|last| last.name.clone());
        for client in clients.into_iter().filter(|client| wanted.meets(client, now)) {
            if chosen.clients.len() == wanted.size {
                chosen.more = true;
                return chosen;
            }
            chosen.clients.push(client);
        }
        if !more {
            return chosen;
        }
        tokio::task::yield_now().await;
    }
}

fn answer(chosen: &Chosen, revision: u64) -> ManageClientsResponse {
    let last = chosen.clients.last().filter(|_| chosen.more);
    let next = last.map(|last| PageToken { revision, after: last.name.clone() }.write());
    ManageClientsResponse {
        next_page_token: next.unwrap_or_default(),
        revision: Some(revision),
        changed: u32::try_from(chosen.clients.len()).ok(),
        ..Default::default()
    }
}
