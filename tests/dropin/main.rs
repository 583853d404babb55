//! tollgate in the place of envoyproxy/ratelimit: with the environments and files of its
//! installations, and behind Envoy with the filters that control planes write. Real binary, Redis
//! and Envoy.
//!
//! * `installed`: environments of installations, as nobody on a read-only root.
//! * `files`: directories of policies. `start`: what is refused, passed over or warned of.
//! * `outage`: Redis is away. `gateway`: Envoy with the filter of Envoy Gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy.toml exempts test functions, not their helpers"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "nothing is public in a test"
)]
#![allow(clippy::disallowed_types, reason = "a poisoned lock is a failed test")]

mod files;
mod gateway;
mod installed;
mod outage;
mod start;

#[path = "../support/mod.rs"]
mod support;
