//! Clients whose descriptor contains a text, from the memory of this replica.

use std::sync::Arc;

use serde::Serialize;

use super::query::Query;
use crate::limiter::Shared;
use crate::limiter::snapshot::Snapshot;
use crate::limits::{Client, ClientName};
use crate::policy::limit_numbers;

/// The most clients of an answer.
const MAX_FOUND: usize = 50;

/// The clients that are read at once.
const PAGE: usize = 1_000;

/// The most clients that a search looks at.
const MAX_LOOKED_AT: usize = 100_000;

/// Clients that were found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    clients: Vec<ClientRow>,
    /// The clients of the domain, or of all domains.
    total: usize,
    /// There are more than those of the answer, or the search has not looked at all of them.
    more: bool,
}

#[derive(Debug, Serialize)]
struct ClientRow {
    domain: String,
    descriptor: String,
    limits: Vec<String>,
    /// The plan that it has now; empty: none.
    plan: String,
    /// The plan does not exist.
    plan_missing: bool,
    shadow: bool,
    /// In seconds since 1970.
    expires_at: Option<u64>,
}

/// Finds the clients of `domain` whose descriptor contains `text`, in the order of their names.
pub(super) fn search(shared: &Shared, query: &Query) -> Found {
    let (domain, text) = (query.one("domain"), query.one("text").unwrap_or_default());
    let directory = shared.resolver.clients.directory();
    let snapshot = shared.policies.current();
    let now = shared.resolver.clients.now();
    let (mut found, mut after, mut looked_at) = (Found::default(), None::<ClientName>, 0);
    loop {
        let page = directory.page(domain, after.as_ref(), PAGE);
        found.total = page.total;
        for client in page.clients.iter().filter(|client| !client.is_expired(now)) {
            let title = shared.resolver.client_title(&client.name, &snapshot);
            if !title.contains(text) {
                continue;
            }
            if found.clients.len() == MAX_FOUND {
                found.more = true;
                return found;
            }
            found.clients.push(row(shared, client, title, &snapshot));
        }
        looked_at += page.clients.len();
        after = page.clients.last().map(|last| last.name.clone());
        found.more = page.more;
        if !page.more || looked_at >= MAX_LOOKED_AT {
            return found;
        }
    }
}

fn row(
    shared: &Shared,
    client: &Arc<Client>,
    descriptor: String,
    snapshot: &Snapshot,
) -> ClientRow {
    let clients = &shared.resolver.clients;
    let plan = client.plan.as_ref().and_then(|plan| plan.at(clients.now()));
    let missing = plan.is_some_and(|plan| clients.directory().plans().find(plan).is_none());
    let model = shared.resolver.model_of(&client.name, snapshot);
    let limits = client.limits.iter().map(|limit| match (&limit.rate, &limit.name) {
        (None, _) => "unlimited".to_owned(),
        (Some(rate), name) => {
            let counted = rate.limit(&model);
            let numbers = if counted.is_ok_and(|limit| limit.is_concurrency()) {
                format!("{} at a time", rate.requests_per_unit)
            } else {
                limit_numbers(rate.requests_per_unit, rate.unit, rate.unit_multiplier.max(1))
            };
            name.as_ref().map_or(numbers.clone(), |name| format!("{numbers} {name}"))
        }
    });
    ClientRow {
        domain: client.name.domain.to_string(),
        descriptor,
        limits: limits.collect(),
        plan: plan.map(|plan| plan.as_str().to_owned()).unwrap_or_default(),
        plan_missing: missing,
        shadow: client.shadow == Some(true),
        expires_at: client.expires_at.map(|at| at.as_micros() / 1_000_000),
    }
}
