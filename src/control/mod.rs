//! The control plane: brings policies, clients and modes to the limiter.
//!
//! ```text
//!  feeds: files ------------------------ drive --> writer --> policies, clients, modes
//!  registry (redis | embedded) <-- follower ----->   |            (the limiter reads)
//!      ^                                             '--> layered: which policy is in force
//!      '-- admin, sweep
//! ```
//! * [`Control`]: the registry, its follower and the writer of a process.
//! * [`writer`]: the only writer of what the limiter reads.
//! * [`layered`]: the policies of all feeds, by precedence.
//! * [`feeds`]: feeds of policies, and the loop that drives them.
//! * [`registry`]: storage of what operators change at run time.
//! * [`follower`]: keeps memory as the registry is.
//! * [`probe`]: finds out early that the registry takes no writes.
//! * [`calendar`]: keeps the calendar clock of the process as the registry's.
//! * [`adaptive`]: turns rules that adapt.
//! * [`hold_keys`]: the keys that sign handles of holds.
//! * [`record`]: keys and values of the registry's records.
//! * `audit`, `report`: log lines.
//! * [`sweep`]: deletes the records of clients that have expired.

pub mod adaptive;
pub(crate) mod audit;
pub mod calendar;
pub mod feeds;
pub mod follower;
pub mod hold_keys;
pub mod layered;
pub mod presence;
pub mod probe;
pub mod record;
pub mod registry;
mod report;
pub mod sweep;
mod writable;
pub mod writer;

use std::sync::Arc;
use std::time::Duration;

use self::audit::Attempt;
use self::follower::Follower;
use self::registry::{Change, Registry, RegistryError, Written};
use self::writable::Writable;
use self::writer::Writer;
use crate::limiter::Shared;

/// The longest wait for this replica to follow the registry, such as before a stored change is
/// acknowledged.
pub(crate) const FOLLOW_PATIENCE: Duration = Duration::from_secs(1);

/// The control plane of a process.
#[derive(Debug)]
pub struct Control<R> {
    follower: Follower<R, Writer>,
    writable: Writable,
}

impl<R: Registry> Control<R> {
    /// Puts records of `registry` in force by `writer`; looks for news at least every `poll`.
    pub fn new(registry: Arc<R>, writer: Arc<Writer>, poll: Duration) -> Self {
        let writable = Writable::new(Arc::clone(&writer.shared().metrics));
        Self { follower: Follower::new(registry, writer, poll), writable }
    }

    /// The storage of what operators change.
    pub const fn registry(&self) -> &Arc<R> {
        self.follower.registry()
    }

    /// The follower of the registry.
    pub const fn follower(&self) -> &Follower<R, Writer> {
        &self.follower
    }

    /// The writer of what the limiter reads.
    pub const fn writer(&self) -> &Arc<Writer> {
        self.follower.mirror()
    }

    /// Everything that cores share.
    pub fn shared(&self) -> &Shared {
        self.writer().shared()
    }

    /// Writes to the registry as [`Self::write`] does, and to the audit log.
    ///
    /// # Errors
    /// When the registry does not write.
    ///
    /// # Cancel safety
    /// Dropped, the change may happen; the audit log says so.
    pub(crate) async fn audited(
        &self,
        attempt: Attempt,
        changes: Vec<Change>,
    ) -> Result<Written, RegistryError> {
        let outcome = self.write(changes).await;
        attempt.settle(&outcome);
        outcome
    }

    /// Writes to the registry. The change is in force on this replica when this returns, unless the
    /// follower is cut off from the registry.
    ///
    /// # Errors
    /// When the registry does not write.
    pub async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        let written = self.registry().write(changes.clone()).await;
        self.writable.note(&written);
        let written = written?;
        if !self.follower.applied(&written, &changes, FOLLOW_PATIENCE).await {
            let revision = written.mark.revision;
            tracing::warn!(revision, "a change is stored, and not yet in force on this replica");
        }
        Ok(written)
    }
}
