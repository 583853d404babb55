//! `List`: clients by pages, all or those that filters leave.

use std::sync::Arc;

use tonic::Status;

use super::{Act, MOST};
use crate::control::registry::Registry;
use crate::domain::Timestamp;
use crate::edge::admin::convert;
use crate::edge::admin::page::PageToken;
use crate::edge::admin::violations::Violations;
use crate::edge::pb::tollgate::v1::ManageClientsResponse;
use crate::edge::pb::tollgate::v1::manage_clients_request::List;
use crate::limits::directory::{Directory, Page};
use crate::limits::name::Value;
use crate::limits::{Client, PlanName};
use crate::store::LimitStore;

/// Clients on a page without a size.
const PAGE: usize = 100;

/// The most clients that are looked at under one lock, as writers wait for it.
const SCAN: usize = 1_000;

impl<R: Registry, S: LimitStore> Act<'_, R, S> {
    pub(super) async fn list(self, list: &List) -> Result<ManageClientsResponse, Status> {
        let token = token(list)?;
        let stale = self.admin.read_once().await?;
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
        let now = self.admin.now();
        let Page { clients, more, total } = page(directory, list, token, now).await;
        let last = clients.last().filter(|_| more);
        let next = last.map(|client| PageToken { revision, after: client.name.clone() }.write());
        let shown = clients.iter().filter(|client| !client.is_expired(now));
        Ok(ManageClientsResponse {
            clients: shown.map(|client| convert::client(client)).collect(),
            next_page_token: next.unwrap_or_default(),
            total: (!has_filters(list)).then_some(total as u64),
            warnings: stale.into_iter().collect(),
            revision: Some(followed),
            ..Default::default()
        })
    }
}

/// The token of a sound request.
fn token(list: &List) -> Result<Option<PageToken>, Status> {
    let mut violations = Violations::default();
    if list.page_size as usize > MOST {
        violations.add("list.page_size", format!("found {}, at most {MOST}", list.page_size));
    }
    let token = (!list.page_token.is_empty()).then(|| PageToken::read(&list.page_token));
    let of_domain =
        |token: &PageToken| list.domain.is_empty() || *token.after.domain == *list.domain;
    if token.as_ref().is_some_and(|token| !token.as_ref().is_some_and(of_domain)) {
        let expected = "is no next_page_token of this list; leave it out to begin again";
        violations.add("list.page_token", expected);
    }
    violations.check()?;
    Ok(token.flatten())
}

/// The page after `token`: the first clients that meet the filters. Every [`SCAN`] clients other
/// tasks get their turn.
async fn page(
    directory: &Directory,
    list: &List,
    token: Option<PageToken>,
    now: Timestamp,
) -> Page {
    let size = if list.page_size == 0 { PAGE } else { list.page_size as usize };
    let domain = (!list.domain.is_empty()).then_some(&*list.domain);
    let start = token.map(|token| token.after);
    if !has_filters(list) {
        return directory.page(domain, start.as_ref(), size);
    }
    let mut met: Vec<Arc<Client>> = Vec::new();
    let mut last: Option<Arc<Client>> = None;
    loop {
        let after = last.as_ref().map(|client| &client.name).or(start.as_ref());
        let Page { clients, more, total } = directory.page(domain, after, SCAN);
        let scanned = clients.len();
        for (i, client) in clients.into_iter().enumerate() {
            if meets(&client, list, now) {
                met.push(Arc::clone(&client));
            }
            if met.len() == size {
                return Page { clients: met, more: more || i + 1 < scanned, total };
            }
            last = Some(client);
        }
        if !more {
            return Page { clients: met, more, total };
        }
        tokio::task::yield_now().await;
    }
}

fn has_filters(list: &List) -> bool {
    !list.labels.is_empty()
        || !list.first_key.is_empty()
        || !list.first_value_prefix.is_empty()
        || !list.plan.is_empty()
}

fn meets(client: &Client, list: &List, now: Timestamp) -> bool {
    let plan = || client.plan.as_deref()?.at(now).map(PlanName::as_str);
    if !list.plan.is_empty() && plan() != Some(&list.plan) {
        return false;
    }
    let own = client.labels.as_deref();
    let has = |(key, value)| own.is_some_and(|own| own.get(key) == Some(value));
    let first = client.name.entries.texts().next();
    first.is_some_and(|(key, value)| {
        (list.first_key.is_empty() || key == list.first_key)
            && begins_with(value, &list.first_value_prefix)
    }) && list.labels.iter().all(has)
}

/// Values that are stored by hash are not known, so they begin with nothing.
fn begins_with(value: Value<'_>, prefix: &str) -> bool {
    prefix.is_empty() || (!value.hashed && value.text().starts_with(prefix))
}
