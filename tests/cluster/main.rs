//! A real Redis Cluster: requests over several slots equal those of a single Redis, and nothing is
//! lost, exceeded or late while slots move and primaries fail.

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

mod access;
mod asked;
mod crashed;
mod crowd;
mod failed;
mod holds;
mod moved;
mod quiet;
mod registry;
mod resharded;

#[path = "../support/mod.rs"]
mod support;
