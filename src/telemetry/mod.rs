//! What tollgate tells of itself: metrics and logs.

pub mod escape;
pub mod logs;
pub mod metrics;
pub mod panics;
pub mod sharded;
