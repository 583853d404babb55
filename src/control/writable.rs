//! The state of writes to the registry: its gauge, and a log line for each change.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::registry::RegistryError;
use crate::telemetry::metrics::Metrics;

/// The outcome of the latest write to the registry.
#[derive(Debug)]
pub(super) struct Writable {
    metrics: Arc<Metrics>,
    /// None: not known yet.
    last: Mutex<Option<bool>>,
    /// A write failed.
    pub(super) failed: Notify,
}

impl Writable {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, last: Mutex::default(), failed: Notify::new() }
    }

    /// Notes the outcome of a write, and reports a change.
    pub(super) fn note<T>(&self, outcome: &Result<T, RegistryError>) {
        let reason = match outcome {
            Ok(_) => None,
            // Not the registry but a record refused.
            Err(RegistryError::Conflict { .. }) => return,
            Err(reason) => Some(reason),
        };
        let mut last = self.last.lock();
        let before = last.replace(reason.is_none());
        self.metrics.registry.writable.set(reason.is_none().into());
        if reason.is_some() {
            self.failed.notify_one();
        }
        match reason {
            // The follower reports it, with the next step.
            Some(RegistryError::Corrupt(_)) => {}
            Some(reason) if before != Some(false) => tracing::warn!(
                %reason,
                "what operators change cannot be stored; make room, make data_dir writable, or \
                 bring Redis back. Until then changes are refused, and SetMode works in memory"
            ),
            None if before == Some(false) => {
                tracing::info!("what operators change can be stored again");
            }
            _ => {}
        }
    }

    /// True if the latest write succeeded.
    pub(super) fn holds(&self) -> bool {
        *self.last.lock() == Some(true)
    }
}
