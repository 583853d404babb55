//! Metrics, statsd, logs, traces, and safe text for them.

pub mod escape;
pub mod logs;
pub mod metrics;
pub mod panics;
pub mod process;
pub mod sharded;
pub mod statsd;
pub mod traces;
