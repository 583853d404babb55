//! `tollgate.v1.ClientService`: one RPC with one action each for single clients.
//!
//! * `delete`, `list`, `reset`: the actions of these names.

mod delete;
mod list;
mod reset;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status};

use super::auth::Who;
use super::convert;
use super::service::{Admin, corrupt, failed};
use super::validate::Validator;
use super::violations::{Violations, violation};
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Record, Registry, RegistryError};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::client_service_server::ClientService;
use crate::edge::pb::tollgate::v1::manage_clients_request::{Action, Get, Upsert};
use crate::edge::pb::tollgate::v1::{ManageClientsRequest, ManageClientsResponse};
use crate::limits::{Client, ClientName};
use crate::policy::network;
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
        let who = Who::of(&request);
        let ManageClientsRequest { action, validate_only } = request.into_inner();
        let act = Act { admin: &self.0, who, validate_only };
        let answer = match action {
            None => {
                let expected = "is required: upsert, get, delete, list or reset_usage";
                return Err(violation("action", expected));
            }
            Some(Action::Upsert(upsert)) => act.upsert(upsert).await,
            Some(Action::Get(get)) => act.get(get).await,
            Some(Action::Delete(delete)) => act.delete(delete).await,
            Some(Action::List(list)) => act.list(&list).await,
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
    async fn upsert(self, upsert: Upsert) -> Result<ManageClientsResponse, Status> {
        let mut warnings = without_requests(&upsert);
        let wanted = self.check_upsert(upsert)?;
        let stored = self.stored_alike(&wanted).await?;
        let mut clients: Vec<Client> = Vec::with_capacity(wanted.len());
        let (mut changes, mut changed) = (Vec::new(), Vec::new());
        for (i, ((client, expect), stored)) in wanted.into_iter().zip(stored).enumerate() {
            if stored.is_none() {
                let value = client.to_record().map_err(|error| corrupt(&error))?;
                changes.push(Change { key: client.name.record_key(), expect, value: Some(value) });
                changed.push(i);
            }
            clients.push(stored.unwrap_or(client));
        }
        let unchanged = clients.len() - changes.len();
        warnings.extend(self.warnings(&clients));
        let mut revision = self.admin.revision();
        let etag_of = |i: usize| format!("upsert.clients[{i}].etag");
        if self.validate_only {
            for (change, &i) in changes.iter().zip(&changed) {
                if change.expect != Expect::Anything {
                    let found = self.admin.read(&change.key).await?;
                    expected(change.expect, found.as_ref(), &etag_of(i))?;
                }
            }
        } else if !changes.is_empty() {
            let attempt = changed.iter().filter_map(|&i| clients.get(i)).fold(
                Attempt::by(&self.who),
                |attempt, client| {
                    let title = audit::client_title(self.admin.shared(), &client.name);
                    let after = audit::client_state(Some(client));
                    attempt.and("upsert_client", title, after, audit::client_record)
                },
            );
            let written =
                self.admin.write(attempt, changes).await.map_err(|error| match error {
                    RegistryError::Conflict { index, found, .. } => {
                        stale(found, &etag_of(changed.get(index).copied().unwrap_or(index)))
                    }
                    error => failed(&error),
                })?;
            revision = written.mark.revision;
            for &i in &changed {
                if let Some(client) = clients.get_mut(i) {
                    client.revision = revision;
                }
            }
        }
        Ok(ManageClientsResponse {
            clients: clients.iter().map(convert::client).collect(),
            warnings,
            revision: Some(revision),
            unchanged: u32::try_from(unchanged).ok(),
            ..Default::default()
        })
    }

    /// Of each of `wanted` the client that is stored, if a write would change nothing but its time
    /// and revision.
    ///
    /// The registry is asked only about clients that look the same here, as most upserts change
    /// something.
    async fn stored_alike(
        &self,
        wanted: &[(Client, Expect)],
    ) -> Result<Vec<Option<Client>>, Status> {
        let directory = self.admin.shared().resolver.clients.directory();
        let alike = async |(i, (client, expect)): (usize, &(Client, Expect))| {
            let here = directory.get(&client.name);
            if !here.is_some_and(|here| here.says_the_same_as(client)) {
                return Ok(None);
            }
            let Some(found) = self.admin.read(&client.name.record_key()).await? else {
                return Ok(None);
            };
            expected(*expect, Some(&found), &format!("upsert.clients[{i}].etag"))?;
            let stored = Client::from_record(&found.value, found.revision).ok();
            Ok(stored.filter(|stored| stored.says_the_same_as(client)))
        };
        let reads = stream::iter(wanted.iter().enumerate()).map(alike);
        reads.buffered(CONCURRENT_READS).try_collect().await
    }

    fn check_upsert(&self, upsert: Upsert) -> Result<Vec<(Client, Expect)>, Status> {
        let count = upsert.clients.len();
        if count == 0 || count > MOST {
            let expected = format!("found {count}, expected 1 to {MOST}");
            return Err(violation("upsert.clients", expected));
        }
        let mut validator = self.validator();
        let mut good = Vec::with_capacity(count);
        let mut first: HashMap<ClientName, usize> = HashMap::with_capacity(count);
        for (i, client) in upsert.clients.into_iter().enumerate() {
            let at = format!("upsert.clients[{i}]");
            let Some((client, expect)) = validator.client(client, &at) else { continue };
            if let Some(other) = first.insert(client.name.clone(), i) {
                let message = format!("is the same client as upsert.clients[{other}]");
                validator.violations.add(at, message);
            }
            good.push((client, expect));
        }
        validator.violations.check()?;
        Ok(good)
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

    /// The client as the registry has it.
    async fn there(&self, name: &ClientName, expect: Expect, at: &str) -> Result<Client, Status> {
        let found = self.admin.read(&name.record_key()).await?.ok_or_else(|| missing(at))?;
        let client =
            Client::from_record(&found.value, found.revision).map_err(|error| corrupt(&error))?;
        if client.is_expired(self.admin.now()) {
            return Err(missing(at));
        }
        expected(expect, Some(&found), &format!("{at}.etag"))?;
        Ok(client)
    }

    fn answer(&self, client: &Client) -> ManageClientsResponse {
        ManageClientsResponse {
            clients: vec![convert::client(client)],
            revision: Some(self.admin.revision()),
            ..Default::default()
        }
    }

    /// What works but is probably not meant.
    fn warnings(&self, clients: &[Client]) -> Vec<String> {
        let snapshot = self.admin.shared().policies.current();
        let warn = |(i, client): (usize, &Client)| {
            let at = format!("upsert.clients[{i}]");
            let Some(policy) = snapshot.policies.domain(client.name.domain.as_bytes()) else {
                return Some(format!(
                    "{at}.domain: no policy names it, so only clients are limited"
                ));
            };
            let entries = &client.name.entries;
            if policy.goes_on(entries) {
                return Some(format!(
                    "{at}.entries: the policy has longer descriptors that begin with these; the client \
                     is not theirs, only that of requests with exactly these entries"
                ));
            }
            policy.find(entries).is_none().then(|| {
                format!(
                    "{at}.entries: no rule matches them; the client limits only requests that send \
                     exactly this descriptor"
                )
            })
        };
        let literal = clients.iter().enumerate().flat_map(literal_values);
        literal.chain(clients.iter().enumerate().filter_map(warn)).collect()
    }
}

/// Warns of values that look like many values: a client is one descriptor, and its values are
/// compared as text.
fn literal_values((i, client): (usize, &Client)) -> impl Iterator<Item = String> + '_ {
    client.name.entries.texts().enumerate().filter_map(move |(j, (key, value))| {
        let advice = if value.contains('*') {
            "a rule can match a pattern: put it into the policy".to_owned()
        } else {
            network::advice(key, value)?
        };
        Some(format!(
            "upsert.clients[{i}].entries[{j}].value: it is compared as text, so it matches only itself; {advice}"
        ))
    })
}

/// Warnings of limits that block because their requests were left out.
fn without_requests(upsert: &Upsert) -> Vec<String> {
    let limits = upsert.clients.iter().enumerate().flat_map(|(i, client)| {
        client.limits.iter().enumerate().map(move |(j, limit)| (i, j, limit))
    });
    let blind = limits.filter(|(.., limit)| limit.requests_per_unit.is_none() && !limit.unlimited);
    let warning = |(i, j, _)| {
        format!(
            "upsert.clients[{i}].limits[{j}].requests_per_unit: is not set, so the limit is 0 and blocks \
             the client; set it, or unlimited"
        )
    };
    blind.map(warning).collect()
}

fn missing(at: &str) -> Status {
    Status::not_found(format!("{at}: there is no such client"))
}

/// Whether what is there is what was expected.
fn expected(expect: Expect, found: Option<&Record>, at: &str) -> Result<(), Status> {
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
