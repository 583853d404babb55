//! The administration over real sockets: what operators may type, what it does, and what it must not do.

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

mod bad;
mod batch;
mod clients;
mod expiry;
mod explain;
mod feeds;
mod plans;
mod policies;
mod replica;
mod reset;
mod scales;
mod sensitive;
mod set_plan;
mod top;

#[path = "../store/random.rs"]
mod random;
#[path = "../support/redis.rs"]
mod redis_server;
#[path = "../support/registry.rs"]
mod registry;
#[path = "../support/traffic.rs"]
#[allow(dead_code, reason = "shared by test binaries that use a part each")]
mod traffic;
