//! Finds out that the registry takes no writes before an operator needs it: a full disk or a Redis
//! without memory answers every read.
//!
//! A probe at the start and each minute, and every write of an operator, say how it is. Modes that
//! were set meanwhile are stored when it takes writes again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::audit::{self, Attempt};
use super::record::{StoredMode, mode_key};
use super::registry::{Change, Expect, Registry};
use super::{Control, FOLLOW_PATIENCE};

/// The interval between two probes.
const PROBE_EVERY: Duration = Duration::from_mins(1);

/// The shortest, while the registry takes no writes or modes wait to be stored.
const PROBE_AGAIN: Duration = Duration::from_secs(2);

/// Probes until `stop`.
pub async fn run<R: Registry>(control: Arc<Control<R>>, stop: impl Future<Output = ()>) {
    let probe = async {
        loop {
            control.writable.note(&control.registry().probe().await);
            if control.writable.holds() {
                store_modes(&control).await;
            }
            if control.writer().unsaved_modes().is_empty() && control.writable.holds() {
                // A write that fails meanwhile ends the wait.
                drop(tokio::time::timeout(PROBE_EVERY, control.writable.failed.notified()).await);
            }
            tokio::time::sleep(PROBE_AGAIN).await;
        }
    };
    tokio::select! {
        () = stop => {}
        () = probe => {}
    }
}

/// Stores the modes that were set while the registry took no writes.
///
/// First come the records that the registry has meanwhile: a mode that another replica stored later
/// is newer, and what it replaces is unsaved no more.
async fn store_modes<R: Registry>(control: &Control<R>) {
    if control.writer().unsaved_modes().is_empty()
        || !control.follower().caught_up(0, FOLLOW_PATIENCE).await
    {
        return;
    }
    for (domain, stored) in control.writer().unsaved_modes() {
        let value = match stored.map(|stored| StoredMode::write(&stored)).transpose() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%error, "a mode is not stored");
                continue;
            }
        };
        let (what, after) = (audit::mode_title(&domain), audit::mode_state(stored));
        let attempt =
            Attempt::by(audit::TOLLGATE).and("store_mode", what, after, audit::mode_record);
        let change = Change { key: mode_key(&domain), expect: Expect::Anything, value };
        if let Err(error) = control.audited(attempt, vec![change]).await {
            tracing::warn!(%error, "a mode that was set in memory is not stored yet");
            return;
        }
    }
}
