//! `tollgate.v1.ClientService`: one RPC with one action each for single clients.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::auth::Who;
use super::convert;
use super::page::PageToken;
use super::service::{Admin, corrupt, failed};
use super::validate::Validator;
use super::violations::{Violations, violation};
use crate::control::audit;
use crate::control::registry::{Change, Expect, Record, Registry, RegistryError};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::client_service_server::ClientService;
use crate::edge::pb::tollgate::v1::manage_clients_request::{
    Action, Delete, Get, List, ResetUsage, Upsert,
};
use crate::edge::pb::tollgate::v1::{ManageClientsRequest, ManageClientsResponse};
use crate::limits::{Client, ClientName};
use crate::policy::network;
use crate::store::LimitStore;

/// The most clients in an upsert, and on a page.
const MOST: usize = 1_000;

/// Clients on a page of which no size is asked.
const PAGE: usize = 100;

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
            Some(Action::List(list)) => act.list(&list),
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
        let wanted = self.check_upsert(upsert)?;
        let mut clients: Vec<Client> = Vec::with_capacity(wanted.len());
        let mut changes = Vec::with_capacity(wanted.len());
        for (client, expect) in wanted {
            let value = client.to_record().map_err(|error| corrupt(&error))?;
            changes.push(Change { key: client.name.record_key(), expect, value: Some(value) });
            clients.push(client);
        }
        let warnings = self.warnings(&clients);
        let mut revision = self.admin.revision();
        if self.validate_only {
            for (i, change) in changes.iter().enumerate() {
                if change.expect != Expect::Anything {
                    let found = self.admin.read(&change.key).await?;
                    expected(change.expect, found.as_ref(), &format!("upsert.clients[{i}].etag"))?;
                }
            }
        } else {
            let written = self.admin.write(changes).await.map_err(|error| match error {
                RegistryError::Conflict { index, found, .. } => {
                    stale(found, &format!("upsert.clients[{index}].etag"))
                }
                error => failed(&error),
            })?;
            revision = written.mark.revision;
            for (client, before) in clients.iter_mut().zip(&written.before) {
                client.revision = revision;
                self.audit("upsert_client", &client.name, before.as_ref(), Some(client));
            }
        }
        let clients = clients.iter().map(convert::client).collect();
        Ok(ManageClientsResponse { clients, warnings, revision, ..Default::default() })
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

    async fn delete(self, delete: Delete) -> Result<ManageClientsResponse, Status> {
        let (name, expect) = self.name(delete.client, "delete.client")?;
        if self.validate_only {
            let client = self.there(&name, expect, "delete.client").await?;
            return Ok(self.answer(&client));
        }
        let expect = if expect == Expect::Anything { Expect::Present } else { expect };
        let change = Change { key: name.record_key(), expect, value: None };
        let written = self.admin.write(vec![change]).await.map_err(|error| match error {
            RegistryError::Conflict { found: None, .. } => missing("delete.client"),
            RegistryError::Conflict { found, .. } => stale(found, "delete.client.etag"),
            error => failed(&error),
        })?;
        let before = written.before.into_iter().next().flatten();
        self.audit("delete_client", &name, before.as_ref(), None);
        // What cannot be read is gone all the same; what has expired was as good as gone.
        let client = before.and_then(|r| Client::from_record(&r.value, r.revision).ok());
        if client.as_ref().is_some_and(|client| client.is_expired(self.admin.now())) {
            return Err(missing("delete.client"));
        }
        let clients = client.iter().map(convert::client).collect();
        Ok(ManageClientsResponse { clients, revision: written.mark.revision, ..Default::default() })
    }

    fn list(self, list: &List) -> Result<ManageClientsResponse, Status> {
        let mut violations = Violations::default();
        let size = list.page_size as usize;
        if size > MOST {
            violations.add("list.page_size", format!("found {size}, at most {MOST}"));
        }
        let token = (!list.page_token.is_empty()).then(|| PageToken::read(&list.page_token));
        let of_domain =
            |token: &PageToken| list.domain.is_empty() || *token.after.domain == *list.domain;
        if token.as_ref().is_some_and(|token| !token.as_ref().is_some_and(of_domain)) {
            let expected = "is no next_page_token of this list; leave it out to begin again";
            violations.add("list.page_token", expected);
        }
        violations.check()?;
        let token = token.flatten();
        // Read before the page, so that the page shows at least this.
        let followed = self.admin.revision();
        let revision = token.as_ref().map_or(followed, |token| token.revision);
        if followed < revision {
            return Err(Status::unavailable(format!(
                "list.page_token: this replica has followed the registry to revision {followed} and the \
                 first page showed {revision}; try again, or leave it out to begin again"
            )));
        }
        let directory = self.admin.shared().resolver.clients.directory();
        let domain = (!list.domain.is_empty()).then_some(&*list.domain);
        let size = if size == 0 { PAGE } else { size };
        let page = directory.page(domain, token.as_ref().map(|token| &token.after), size);
        let last = page.clients.last().filter(|_| page.more);
        let next = last.map(|client| PageToken { revision, after: client.name.clone() }.write());
        let now = self.admin.now();
        let shown = page.clients.iter().filter(|client| !client.is_expired(now));
        Ok(ManageClientsResponse {
            clients: shown.map(|client| convert::client(client)).collect(),
            next_page_token: next.unwrap_or_default(),
            total: page.total as u64,
            revision: followed,
            ..Default::default()
        })
    }

    async fn reset_usage(self, reset: ResetUsage) -> Result<ManageClientsResponse, Status> {
        let (name, expect) = self.name(reset.client, "reset_usage.client")?;
        let client = self.there(&name, expect, "reset_usage.client").await?;
        let mut answer = self.answer(&client);
        if self.validate_only {
            return Ok(answer);
        }
        let shared = self.admin.shared();
        let keys = shared.resolver.client_keys(&client, &shared.policies.current());
        let forgotten = self.admin.limiter.forget(&keys, self.admin.deadline()).await;
        answer.counters_reset =
            forgotten.map_err(|error| Status::unavailable(error.to_string()))?;
        let counters = format!("{} counters", answer.counters_reset);
        let title = audit::client_title(shared, &name);
        audit::changed(&self.who, "reset_usage", &title, &counters, "0 counters");
        Ok(answer)
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
            revision: self.admin.revision(),
            ..Default::default()
        }
    }

    fn audit(
        &self,
        action: &str,
        name: &ClientName,
        before: Option<&Record>,
        after: Option<&Client>,
    ) {
        let before = before.map(|record| Client::from_record(&record.value, record.revision));
        let before = match &before {
            None => audit::client_state(None),
            Some(Ok(client)) => audit::client_state(Some(client)),
            Some(Err(error)) => error.to_string(),
        };
        let title = audit::client_title(self.admin.shared(), name);
        audit::changed(&self.who, action, &title, &before, &audit::client_state(after));
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
