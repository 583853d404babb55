//! The health of the connection to Redis, shared by the store and its batch task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

/// The error text of calls after the connection task has ended.
pub(super) const TASK_ENDED: &str = "the connection task has ended";

/// The state of the connection. The batch task writes it, the store reads it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The reason why there is no connection; `None` while there is one.
    pub(super) down: ArcSwapOption<String>,
    pub(super) tried: AtomicBool,
    pub(super) unreadable: AtomicU64,
    pub(super) frames: AtomicU64,
}

impl Health {
    pub(super) fn new() -> Self {
        let down = ArcSwapOption::from_pointee("not connected yet".to_owned());
        Self { down, ..Self::default() }
    }

    pub(super) fn down(&self) -> Option<String> {
        self.down.load().as_deref().cloned()
    }

    pub(super) fn set_connected(&self) {
        self.down.store(None);
        self.tried.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_down(&self, reason: &str) {
        self.down.store(Some(Arc::new(reason.to_owned())));
        self.tried.store(true, Ordering::Relaxed);
    }
}
