//! Messages and services generated from `proto/`.
//!
//! `domain`, `key` and `value` of Envoy's messages are bytes here: Envoy copies raw header bytes into them, and
//! refusing those would let the request pass unlimited. `dynamic_metadata` is the bytes of its message, because building
//! that costs more than deciding.

include!(concat!(env!("OUT_DIR"), "/pb.rs"));

pub use envoy::config::core::v3::HeaderValue;
pub use envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor};
pub use envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_response, rate_limit_service_client,
    rate_limit_service_server,
};

/// The descriptors of `proto/`, as reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
