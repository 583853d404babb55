//! Deletes the records of clients and scales that have expired, and replaces those with a plan that
//! has ended, or with sensitive values in clear.
//!
//! An expired client has no effect; the sweep only keeps the registry from filling up. A plan ends
//! by the clock; the sweep only keeps its clients from being counted. Every replica sweeps. The
//! registry alone judges, by its own clock and by the record that it holds: a replica whose clock
//! is wrong, or that is behind, deletes no client that is to stay.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Registry, RegistryError};
use crate::domain::Timestamp;
use crate::limits::{Client, ClientName};

/// The clients of one page, and the most that one write deletes.
const BATCH: usize = 500;

/// Sweeps `every` so often until `stop`.
pub async fn run<R: Registry>(
    control: Arc<Control<R>>,
    every: Duration,
    stop: impl Future<Output = ()>,
) {
    let sweep = async {
        control.follower().synced().await;
        let mut hidden = None;
        loop {
            // The walk asks about every client of a domain with sensitive values, so it is left out
            // while neither clients nor policies change.
            let version = control.shared().policies.current().version;
            let state = Some((version, control.follower().progress().revision));
            if hidden != state {
                match hide(&control).await {
                    Ok(_) => hidden = state,
                    Err(error) => {
                        tracing::warn!(%error, "sensitive values stay in the registry for now");
                    }
                }
            }
            tokio::time::sleep(every).await;
            if let Err(error) = sweep(&control).await {
                tracing::warn!(%error, "expired clients stay in the registry for now");
            }
            if let Err(error) = end_scales(&control).await {
                tracing::warn!(%error, "ended scales stay in the registry for now");
            }
            if let Err(error) = end_plans(&control).await {
                tracing::warn!(%error, "ended plans stay in the registry for now");
            }
        }
    };
    tokio::select! {
        () = stop => {}
        () = sweep => {}
    }
}

/// Deletes every client that has expired, and returns the number that this call deleted.
///
/// # Errors
/// When the registry does not answer.
pub async fn sweep<R: Registry>(control: &Control<R>) -> Result<usize, RegistryError> {
    let clients = &control.shared().resolver.clients;
    // Not the calendar of this process: it may not have been corrected yet.
    let now = control.registry().now().await?;
    let (mut after, mut deleted): (Option<ClientName>, usize) = (None, 0);
    loop {
        // By pages, so that no writer waits for a walk through all clients.
        let page = clients.directory().page(None, after.as_ref(), BATCH);
        let expired: Vec<_> = page.clients.iter().filter(|c| c.is_expired(now)).collect();
        if !expired.is_empty() {
            deleted += delete(control, &expired).await?;
        }
        after = page.clients.last().map(|client| client.name.clone());
        if !page.more {
            return Ok(deleted);
        }
        tokio::task::yield_now().await;
    }
}

/// Deletes every scale that has ended, and returns the number that this call deleted.
///
/// # Errors
/// When the registry does not answer.
pub async fn end_scales<R: Registry>(control: &Control<R>) -> Result<usize, RegistryError> {
    let mut scales = control.writer().scales();
    if scales.iter().all(|(_, scale)| scale.expires_at.is_none()) {
        return Ok(0);
    }
    let now = control.registry().now().await?;
    scales.retain(|(_, scale)| scale.has_ended(now));
    let mut deleted = 0;
    for (key, _) in scales {
        // By the clock of the registry, and by what it holds now: another replica may be faster.
        let change = Change { key: key.record_key(), expect: Expect::Expired, value: None };
        match control.write(vec![change]).await {
            Ok(_) => deleted += 1,
            Err(RegistryError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Gives every client whose plan has ended the plan that follows, and returns the number of clients
/// that this call changed. A client that has neither a plan nor limits then is deleted: the rule
/// limits it already.
///
/// # Errors
/// When the registry does not answer.
pub async fn end_plans<R: Registry>(control: &Control<R>) -> Result<usize, RegistryError> {
    let directory = control.shared().resolver.clients.directory();
    if directory.plans().clients_with_end() == 0 {
        return Ok(0);
    }
    let now = control.registry().now().await?;
    let has_ended =
        |client: &&Arc<Client>| client.plan.as_ref().is_some_and(|plan| plan.has_ended(now));
    let (mut after, mut changed): (Option<ClientName>, usize) = (None, 0);
    loop {
        let page = directory.page(None, after.as_ref(), BATCH);
        let ended: Vec<&Arc<Client>> = page.clients.iter().filter(has_ended).collect();
        if !ended.is_empty() {
            changed += end(control, &ended, now).await?;
        }
        after = page.clients.last().map(|client| client.name.clone());
        if !page.more {
            return Ok(changed);
        }
        tokio::task::yield_now().await;
    }
}

/// Ends the plans of clients together; of none of them when another replica was faster.
async fn end<R: Registry>(
    control: &Control<R>,
    clients: &[&Arc<Client>],
    now: Timestamp,
) -> Result<usize, RegistryError> {
    let (mut attempt, mut changes) = (Attempt::by(audit::TOLLGATE), Vec::new());
    for client in clients {
        let plan = client.plan.as_ref().and_then(|plan| plan.current(now));
        let is_limited = plan.is_some() || !client.limits.is_empty();
        let after = Client { plan, updated_at: now, ..Client::clone(client) };
        let after = is_limited.then_some(after);
        let Ok(value) = after.as_ref().map(Client::to_record).transpose() else { continue };
        let expect = Expect::Revision(client.revision);
        changes.push(Change { key: client.name.record_key(), expect, value });
        let title = audit::client_title(control.shared(), &client.name);
        let state = audit::client_state(after.as_ref());
        attempt = attempt.and("end_plan", title, state, audit::client_record);
    }
    match control.audited(attempt, changes).await {
        Err(RegistryError::Conflict { .. }) => Ok(0),
        outcome => outcome.map(|_| clients.len()),
    }
}

/// Stores every client by the hash of its sensitive values that has them in clear: its record is
/// older than the policy that marks them, or than this build. Returns the number of records that
/// this call replaced. The log of the registry forgets the values when the changes leave it.
///
/// # Errors
/// When the registry does not answer.
pub async fn hide<R: Registry>(control: &Control<R>) -> Result<usize, RegistryError> {
    let shared = control.shared();
    let directory = shared.resolver.clients.directory();
    let (mut after, mut hidden): (Option<ClientName>, usize) = (None, 0);
    loop {
        let page = directory.page(None, after.as_ref(), BATCH);
        let snapshot = shared.policies.current();
        let in_clear: Vec<(&Arc<Client>, ClientName)> = page
            .clients
            .iter()
            .filter_map(|c| Some((c, shared.resolver.hidden_name(&c.name, &snapshot)?)))
            .collect();
        if !in_clear.is_empty() {
            hidden += replace(control, &in_clear).await?;
        }
        after = page.clients.last().map(|client| client.name.clone());
        if !page.more {
            break;
        }
        // The thread answers `/livez` too.
        tokio::task::yield_now().await;
    }
    if hidden > 0 {
        tracing::info!(clients = hidden, "sensitive values in the registry are replaced by hashes");
    }
    Ok(hidden)
}

/// Gives clients other names, together; none of them when another replica was faster.
async fn replace<R: Registry>(
    control: &Control<R>,
    clients: &[(&Arc<Client>, ClientName)],
) -> Result<usize, RegistryError> {
    let directory = control.shared().resolver.clients.directory();
    let mut attempt = Attempt::by(audit::TOLLGATE);
    let (mut changes, mut gone) = (Vec::new(), Vec::new());
    for (client, name) in clients {
        let expect = Expect::Revision(client.revision);
        let old = Change { key: client.name.record_key(), expect, value: None };
        let there = directory.get(name);
        if there.as_ref().is_some_and(|there| there.revision > client.revision) {
            gone.push(old);
            continue;
        }
        let hidden = Client { name: name.clone(), ..Client::clone(client) };
        let Ok(value) = hidden.to_record() else { continue };
        gone.push(old);
        let expect = there.map_or(Expect::Absent, |there| Expect::Revision(there.revision));
        changes.push(Change { key: name.record_key(), expect, value: Some(value) });
        let title = audit::client_title(control.shared(), name);
        let after = audit::client_state(Some(&hidden));
        attempt = attempt.and("hide_client", title, after, audit::client_record);
    }
    changes.append(&mut gone);
    match control.audited(attempt, changes).await {
        Err(RegistryError::Conflict { .. }) => Ok(0),
        outcome => outcome.map(|_| clients.len()),
    }
}

/// Deletes clients together. If one of them has not expired, or another replica was faster, it
/// deletes none, and the next sweep sees what is left: replicas that sweep at the same time do not
/// race for each client.
async fn delete<R: Registry>(
    control: &Control<R>,
    expired: &[&Arc<Client>],
) -> Result<usize, RegistryError> {
    let change = |client: &&Arc<Client>| Change {
        key: client.name.record_key(),
        expect: Expect::Expired,
        value: None,
    };
    let line = |attempt: Attempt, client: &&Arc<Client>| {
        let title = audit::client_title(control.shared(), &client.name);
        attempt.and("expire_client", title, audit::NOTHING, audit::client_record)
    };
    let attempt = expired.iter().fold(Attempt::by(audit::TOLLGATE), line);
    match control.audited(attempt, expired.iter().map(change).collect()).await {
        Err(RegistryError::Conflict { .. }) => Ok(0),
        outcome => outcome.map(|_| expired.len()),
    }
}
