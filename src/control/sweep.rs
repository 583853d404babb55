//! Deletes the records of clients that have expired.
//!
//! An expired client has no effect; the sweep only keeps the registry from filling up. Every replica
//! sweeps. The registry alone judges, by its own clock and by the record that it holds: a replica
//! whose clock is wrong, or that is behind, deletes no client that is to stay.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Registry, RegistryError};
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
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = sweep(&control).await {
                tracing::warn!(%error, "expired clients stay in the registry for now");
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
    let now = control.registry().now().await?.as_micros();
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
    }
}

/// Deletes clients together. If one of them has not expired, or another replica was faster, it deletes
/// none, and the next sweep sees what is left: replicas that sweep at the same time do not race for
/// each client.
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
