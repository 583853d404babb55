//! Messages and the client of the control plane's protocol, generated from `proto/`.
//!
//! `descriptors` of a policy and of its nodes, and `metadata`, are encoded messages on purpose: the
//! decoder would recurse and stop at 100 levels.

include!(concat!(env!("OUT_DIR"), "/xds/pb.rs"));

pub use envoy::config::core::v3::Node;
pub use envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, aggregated_discovery_service_client,
    aggregated_discovery_service_server,
};
pub use google::rpc::Status;
pub use ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitReplace, RateLimitUnit,
};
