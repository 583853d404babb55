//! What tollgate tells of itself: metrics, and text fit for logs.

pub mod escape;
pub mod metrics;
