//! Metrics, logs, and safe text for both.

pub mod escape;
pub mod logs;
pub mod metrics;
pub mod panics;
pub mod process;
pub mod sharded;
