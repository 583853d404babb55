//! The state that the admin services share, and the statuses of their failures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert;
use crate::control::audit::Attempt;
use crate::control::follower::Freshness;
use crate::control::layered::Layered;
use crate::control::registry::{Change, Record, Registry, RegistryError, Written};
use crate::control::{Control, FOLLOW_PATIENCE};
use crate::domain::Timestamp;
use crate::limiter::{Limiter, Shared};
use crate::store::{Deadline, LimitStore};
use crate::telemetry::logs::LogHandle;

/// The longest silence of the registry, before its first answer, that a list waits for.
const FIRST_READ: Duration = Duration::from_secs(1);

/// The state that the services of the admin listener share.
#[derive(Debug)]
pub struct Admin<R, S> {
    pub(super) control: Arc<Control<R>>,
    pub(super) limiter: Limiter<S>,
    pub(super) store_deadline: Duration,
    /// None: the log is not that of this process.
    pub(super) logs: Option<LogHandle>,
    /// Streams end with it.
    pub(super) stop: CancellationToken,
}

impl<R: Registry, S: LimitStore> Admin<R, S> {
    /// Writes by `control`, which puts it in force, and asks `limiter`, whose store may take
    /// `store_deadline`.
    pub fn new(control: Arc<Control<R>>, limiter: Limiter<S>, store_deadline: Duration) -> Self {
        let stop = CancellationToken::new();
        Self { control, limiter, store_deadline, logs: None, stop }
    }

    /// The same with the log of this process, whose level operators may set.
    #[must_use]
    pub fn with_logs(self, logs: LogHandle) -> Self {
        Self { logs: Some(logs), ..self }
    }

    /// The same with streams that end with `stop`.
    #[must_use]
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// The policies of every feed.
    pub(super) fn layered(&self) -> Arc<Layered> {
        self.control.writer().layered()
    }

    /// The revision that this replica has followed.
    pub(super) fn revision(&self) -> u64 {
        self.control.follower().progress().revision
    }

    pub(super) fn shared(&self) -> &Shared {
        self.control.shared()
    }

    /// The present.
    pub(super) fn now(&self) -> Timestamp {
        self.shared().resolver.clients.now()
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::from(Instant::now() + self.store_deadline)
    }

    pub(super) async fn read(&self, key: &Bytes) -> Result<Option<Record>, Status> {
        self.control.registry().read(key).await.map_err(|error| failed(&error))
    }

    /// Waits until what the registry has now is in force here, but not for long: it may be cut off.
    pub(super) async fn catch_up(&self, revision: u64) {
        self.control.follower().caught_up(revision, FOLLOW_PATIENCE).await;
    }

    /// Waits until the registry was read once. Returns a warning while what was read is stale.
    ///
    /// # Errors
    /// It was never read: an empty list would pass for an empty registry.
    pub(super) async fn read_once(&self) -> Result<Option<String>, Status> {
        let follower = self.control.follower();
        follower.tried(FIRST_READ).await;
        match follower.freshness() {
            Freshness::Fresh => Ok(None),
            Freshness::Stale { age, reason } => {
                let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
                let since = convert::timestamp(self.now().minus_micros(age));
                Ok(Some(format!("as of {since}; the registry has not answered since: {reason}")))
            }
            Freshness::Unread { reason } => Err(Status::unavailable(format!(
                "the registry was never read, so this replica does not know what operators \
                 changed: {reason}; bring Redis or the file in data_dir back, and repeat the call"
            ))),
        }
    }

    /// Waits until this replica has everything that the registry has now.
    ///
    /// # Errors
    /// It does not come, so that what is in memory is no ground for a change.
    pub(super) async fn caught_up(&self) -> Result<(), Status> {
        let newest = self.control.registry().newest().await.map_err(|error| failed(&error))?;
        let follower = self.control.follower();
        if follower.caught_up(newest.revision, FOLLOW_PATIENCE).await {
            return Ok(());
        }
        Err(Status::unavailable(format!(
            "this replica has followed the registry to revision {} of {}; try again",
            self.revision(),
            newest.revision
        )))
    }

    /// Writes, and puts in force what was written. `attempt` has a line for each of the first
    /// changes.
    pub(super) async fn write(
        &self,
        attempt: Attempt,
        changes: Vec<Change>,
    ) -> Result<Written, RegistryError> {
        self.control.audited(attempt, changes).await
    }
}

/// The status of a registry that did not do it; a conflict is for the caller to explain.
pub(super) fn failed(error: &RegistryError) -> Status {
    match error {
        RegistryError::Conflict { .. } => Status::aborted(error.to_string()),
        RegistryError::Unavailable(_) | RegistryError::Unknown(_) => {
            tracing::warn!(%error, "an administrative call failed");
            Status::unavailable(error.to_string())
        }
        RegistryError::Corrupt(_) => {
            tracing::error!(%error, "an administrative call failed");
            Status::internal(error.to_string())
        }
    }
}

/// A record that is there and cannot be read.
pub(super) fn corrupt(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a record of the registry cannot be read");
    Status::internal(error.to_string())
}
