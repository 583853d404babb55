//! The edges: where a protocol ends and the decision begins.
//!
//! * [`grpc`]: Envoy's rate limit protocol.
//! * [`admin`]: clients, policies, the kill switch and explanations, for operators.
//! * [`http`]: JSON, health and metrics.
//! * [`listener`]: the one way in: accepting and serving connections, within bounds.
//! * [`pb`]: the messages and services of all of them.

pub mod admin;
pub mod grpc;
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
