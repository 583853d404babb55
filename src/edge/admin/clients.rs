//! `tollgate.v1.ClientService`: one RPC with one action each for single clients.
//!
//! * `delete`, `list`, `reset`, `set_plan`, `upsert`: the actions of these names.

mod delete;
mod list;
mod reset;
mod set_plan;
mod upsert;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use super::identity::{Role, Who};
use super::service::{Admin, corrupt};
use super::validate::Validator;
use super::violations::{Violations, violation};
use crate::control::registry::{Expect, Record, Registry};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::client_service_server::ClientService;
use crate::edge::pb::tollgate::v1::manage_clients_request::{Action, Get};
use crate::edge::pb::tollgate::v1::{ManageClientsRequest, ManageClientsResponse};
use crate::limits::{Client, ClientName, PlanKey};
use crate::store::LimitStore;

/// The most clients in an upsert or a delete, and on a page.
const MOST: usize = 1_000;

/// The most reads of the registry at once.
const CONCURRENT_READS: usize = 32;

/// The service.
#[derive(Debug)]
pub(super) struct Clients<R, S>(pub(super) Arc<Admin<R, S>>);

#[tonic::async_trait]
impl<R: Registry, S: LimitStore> ClientService for Clients<R, S> {
    async fn manage_clients(
        &self,
        request: Request<ManageClientsRequest>,
    ) -> Result<Response<ManageClientsResponse>, Status> {
        let who = Who::of(&request)?;
        let ManageClientsRequest { action, validate_only } = request.into_inner();
        // Without an action the answer is a fault, whatever the role.
        if !matches!(action, None | Some(Action::Get(_) | Action::List(_))) {
            who.may(Role::Write)?;
        }
        let act = Act { admin: &self.0, who, validate_only };
        let answer = match action {
            None => {
                let expected = "is required: upsert, get, delete, list, reset_usage or set_plan";
                return Err(violation("action", expected));
            }
            Some(Action::Upsert(upsert)) => act.upsert(upsert).await,
            Some(Action::Get(get)) => act.get(get).await,
            Some(Action::Delete(delete)) => act.delete(delete).await,
            Some(Action::List(list)) => act.list(&list).await,
            Some(Action::SetPlan(set_plan)) => act.set_plan(&set_plan).await,
            Some(Action::ResetUsage(reset)) => act.reset_usage(reset).await,
        };
        Ok(Response::new(answer?))
    }
}

/// One call.
struct Act<'a, R, S> {
    admin: &'a Admin<R, S>,
    who: Who,
    validate_only: bool,
}

impl<R: Registry, S: LimitStore> Act<'_, R, S> {
    /// The name under which a client is to be stored: sensitive values by their hash.
    fn hidden(&self, name: &ClientName) -> ClientName {
        let shared = self.admin.shared();
        let hidden = shared.resolver.hidden_name(name, &shared.policies.current());
        hidden.unwrap_or_else(|| name.clone())
    }

    /// The names under which a client may be stored: that in memory first. A policy that marks its
    /// values may have come or gone since, and another replica may have renamed it.
    fn forms(&self, name: &ClientName) -> Vec<ClientName> {
        let there = self.admin.shared().resolver.stored_client(name);
        let mut forms: Vec<ClientName> =
            there.map(|there| there.name.clone()).into_iter().collect();
        for form in [self.hidden(name), name.clone()] {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms
    }

    async fn get(self, get: Get) -> Result<ManageClientsResponse, Status> {
        let (name, expect) = self.name(get.client, "get.client")?;
        let client = self.there(&name, expect, "get.client").await?;
        Ok(self.answer(&client))
    }

    fn validator(&self) -> Validator<'_> {
        let (bounds, now) = (&self.admin.shared().bounds, self.admin.now());
        Validator { bounds, now, violations: Violations::default() }
    }

    fn name(&self, name: Option<pb::ClientName>, at: &str) -> Result<(ClientName, Expect), Status> {
        let mut validator = self.validator();
        let named = validator.client_name(name, at);
        named.ok_or_else(|| validator.violations.into_status())
    }

    /// The record of a client, in the first form that the registry has.
    async fn record(&self, name: &ClientName) -> Result<Option<Record>, Status> {
        for form in self.forms(name) {
            let found = self.admin.read(&form.record_key()).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The client as the registry has it.
    async fn there(&self, name: &ClientName, expect: Expect, at: &str) -> Result<Client, Status> {
        let found = self.record(name).await?.ok_or_else(|| missing(at))?;
        let client =
            Client::from_record(&found.value, found.revision).map_err(|error| corrupt(&error))?;
        if client.is_expired(self.admin.now()) {
            return Err(missing(at));
        }
        expected(expect, Some(&found), &format!("{at}.etag"))?;
        Ok(client)
    }

    /// Returns true if there is a plan: in memory, or in the registry, which may be ahead.
    async fn has_plan(&self, key: &PlanKey) -> Result<bool, Status> {
        let directory = self.admin.shared().resolver.clients.directory();
        Ok(directory.plans().get(key).is_some()
            || self.admin.read(&key.record_key()).await?.is_some())
    }

    fn answer(&self, client: &Client) -> ManageClientsResponse {
        ManageClientsResponse {
            clients: vec![convert::client(client)],
            revision: Some(self.admin.revision()),
            ..Default::default()
        }
    }
}

pub(super) fn no_such_plan(key: &PlanKey) -> String {
    format!("there is no plan {:?} in the domain {:?}", key.name, key.domain)
}

fn missing(at: &str) -> Status {
    Status::not_found(format!("{at}: there is no such client"))
}

/// Compares the record that is there with the expected one.
pub(super) fn expected(expect: Expect, found: Option<&Record>, at: &str) -> Result<(), Status> {
    let revision = found.map(|record| record.revision);
    match expect {
        Expect::Revision(wanted) if revision != Some(wanted) => Err(stale(revision, at)),
        _ => Ok(()),
    }
}

/// The status of an etag that is no longer so.
pub(super) fn stale(found: Option<u64>, at: &str) -> Status {
    let found = found.map_or("it is gone".to_owned(), |found| format!("it is {found} now"));
    Status::aborted(format!("{at}: is stale, {found}; read again and repeat the change"))
}
