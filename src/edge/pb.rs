//! Messages and services generated from `proto/`.
//!
//! Two fields differ from the proto files on purpose. `domain`, `key` and `value` of Envoy's
//! messages are bytes, because Envoy copies raw header bytes into them and passes a request without
//! a limit if the service rejects it. `dynamic_metadata` is the encoded message, because building
//! it costs more than a decision.

include!(concat!(env!("OUT_DIR"), "/pb.rs"));

pub use envoy::config::core::v3::HeaderValue;
pub use envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor};
pub use envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_response, rate_limit_service_client,
    rate_limit_service_server,
};

/// The descriptors of `proto/`, as reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
