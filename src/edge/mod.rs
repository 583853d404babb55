//! The protocols. Wire formats end here; the decision begins in [`limiter`](crate::limiter).
//!
//! * [`grpc`]: Envoy's rate limit protocol.
//! * [`admin`]: clients, policies, the kill switch and explanations, for operators.
//! * [`http`]: JSON, health and metrics.
//! * [`health`]: the readiness of this instance for traffic.
//! * [`listener`]: accepts and serves the connections of all listeners, within bounds.
//! * [`pb`]: the generated messages and services.

pub mod admin;
pub mod grpc;
pub mod health;
pub mod http;
pub mod listener;
#[expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
#[allow(
    missing_debug_implementations,
    unused_qualifications,
    clippy::large_futures,
    reason = "generated"
)]
pub mod pb;
