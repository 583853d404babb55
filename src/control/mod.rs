//! The control plane: what operators and files change, brought to what the limiter reads.
//!
//! * [`feeds`]: where policies come from.
//! * [`registry`]: where what operators change at run time is kept.
//! * [`follower`]: keeps what is in memory as the registry is.
//! * [`calendar`]: keeps the calendar clock of the process as the registry's.
//! * [`record`]: what the registry's records are called and hold.
//! * [`mirror`]: the registry's records and the policy files, in force.
//! * [`layered`]: policies of files and policies applied at run time, together.
//! * `audit`: a log line per change.
//! * [`sweep`]: deletes the records of clients that have expired.

pub(crate) mod audit;
pub mod calendar;
pub mod feeds;
pub mod follower;
pub mod layered;
pub mod mirror;
pub mod record;
pub mod registry;
pub mod sweep;

use std::time::Duration;

use self::follower::Follower;
use self::mirror::Mirror;
use self::registry::{Change, Registry, RegistryError, Written};

/// How long a change waits to be in force here before it is acknowledged all the same: it is stored by then.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(1);

/// Writes; this replica has it in force when the answer goes out, unless its follower is cut off from the registry.
pub(crate) async fn write<R: Registry>(
    follower: &Follower<R, Mirror>,
    changes: Vec<Change>,
) -> Result<Written, RegistryError> {
    let written = follower.registry().write(changes.clone()).await?;
    if !follower.applied(&written, &changes, FOLLOW_PATIENCE).await {
        let revision = written.mark.revision;
        tracing::warn!(revision, "a change is stored, and not yet in force on this replica");
    }
    Ok(written)
}
