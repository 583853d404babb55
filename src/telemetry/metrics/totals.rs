//! Counts of the process that envoyproxy/ratelimit has under other names.

use prometheus_client::metrics::counter::Counter;

use crate::telemetry::sharded::ShardedCounter;

/// Counters of tollgate, read under other names.
#[derive(Debug)]
pub(super) struct Totals {
    /// Requests that the store did not decide, by kind of failure.
    pub(super) store_errors: [ShardedCounter; 4],
    /// Requests answered with an error.
    pub(super) invalid: [ShardedCounter; 2],
    pub(super) reloads_ok: Counter,
    pub(super) reloads_failed: Counter,
}

impl Totals {
    pub(super) fn redis_errors(&self) -> u64 {
        self.store_errors.iter().map(ShardedCounter::get).sum()
    }

    pub(super) fn service_errors(&self) -> u64 {
        self.invalid.iter().map(ShardedCounter::get).sum()
    }

    /// Policies put in force. Those of the start are no reload, but a load.
    pub(super) fn loads(&self) -> u64 {
        self.reloads_ok.get() + 1
    }

    pub(super) fn failed_loads(&self) -> u64 {
        self.reloads_failed.get()
    }
}
