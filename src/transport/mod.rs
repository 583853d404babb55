//! The gRPC edge: Envoy's protocol in, Envoy's protocol out. Protobuf ends here.
//!
//! * [`pb`]: the generated messages and services.
//! * [`convert`]: a request of the protocol as a [`crate::limiter::request::Request`].
//! * [`response`]: a decision as a response of the protocol.
//! * [`rls`]: the service, for gRPC and for `/json`.
//! * [`connections`]: HTTP/2 connections of one core, from accepted to finished.
//! * `structs`: dynamic metadata, written straight to bytes.
//! * `unary`: one call on the wire, message in and reply out.
//! * [`server`]: which services the gRPC listeners have.

pub mod connections;
pub mod convert;
pub mod headers;
pub mod metadata;
pub mod response;
pub mod rls;
pub mod server;
mod structs;
mod unary;

/// Messages and services generated from `proto/`.
///
/// `domain`, `key` and `value` of Envoy's messages are bytes here: Envoy copies raw header bytes into them, and
/// refusing those would let the request pass unlimited. `dynamic_metadata` is the bytes of its message, because building
/// that costs more than deciding.
#[expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
#[allow(
    missing_debug_implementations,
    unused_qualifications,
    clippy::large_futures,
    reason = "generated"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));

    pub use envoy::config::core::v3::HeaderValue;
    pub use envoy::extensions::common::ratelimit::v3::{
        RateLimitDescriptor, rate_limit_descriptor,
    };
    pub use envoy::service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse, rate_limit_response, rate_limit_service_client,
        rate_limit_service_server,
    };

    /// The descriptors of `proto/`, as reflection serves them.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
