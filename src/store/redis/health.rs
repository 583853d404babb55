//! The health of the connection to Redis, shared by the store and its batch task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::breaker::BreakerState;

/// The error text of calls after the connection task has ended.
pub(super) const TASK_ENDED: &str = "the connection task has ended";

/// The state of the connection. The batch task writes it, the store reads it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The reason why calls are refused; `None` while they are sent.
    down: ArcSwapOption<String>,
    breaker: AtomicU8,
    /// True once the first attempt to connect has succeeded or failed.
    tried: watch::Sender<bool>,
    /// True while calls are queued although there is no connection: the first attempt is under way.
    pub(super) patient: AtomicBool,
    /// The number of connections so far.
    pub(super) connections: AtomicU64,
}

/// Counts of a store. A store adds up what its connections count.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) unreadable: AtomicU64,
    pub(super) frames: AtomicU64,
    /// Calls of the script that are no longer waited for.
    pub(super) ended: AtomicU64,
    /// Answers that came after their call was decided without them.
    pub(super) late: AtomicU64,
    /// Calls that waited longer because this process was late itself.
    pub(super) extended: AtomicU64,
}

impl Health {
    /// The state before the first attempt to connect, for which calls wait.
    pub(super) fn new() -> Self {
        let down = ArcSwapOption::from_pointee("not connected yet".to_owned());
        Self { down, patient: AtomicBool::new(true), ..Self::default() }
    }

    /// True once the first attempt to connect has succeeded or failed.
    pub(super) fn has_tried(&self) -> bool {
        *self.tried.borrow()
    }

    /// Waits until the first attempt to connect has succeeded or failed.
    pub(super) async fn tried(&self) {
        // The sender is here, so it does not end.
        drop(self.tried.subscribe().wait_for(|tried| *tried).await);
    }

    /// The reason why a call is refused at once.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.patient.load(Ordering::Relaxed) { None } else { self.down() }
    }

    /// The reason why calls are refused.
    pub(super) fn down(&self) -> Option<String> {
        self.down.load().as_deref().cloned()
    }

    /// True while calls are sent.
    pub(super) fn is_up(&self) -> bool {
        self.down.load().is_none()
    }

    pub(super) fn set_up(&self) {
        self.down.store(None);
        self.tried.send_replace(true);
    }

    pub(super) fn set_down(&self, reason: &str) {
        self.down.store(Some(Arc::new(reason.to_owned())));
        self.tried.send_replace(true);
    }

    pub(super) fn set_breaker(&self, state: BreakerState) {
        self.breaker.store(state as u8, Ordering::Relaxed);
    }

    /// The state of the breaker.
    pub(super) fn breaker(&self) -> BreakerState {
        let state = usize::from(self.breaker.load(Ordering::Relaxed));
        BreakerState::ALL.get(state).copied().unwrap_or(BreakerState::Down)
    }
}
