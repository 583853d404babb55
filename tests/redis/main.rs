//! Ways to Redis: over TLS, with users and passwords that change, and through Sentinel. The real
//! binary and the real Redis.

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

mod acl;
mod ask;
mod inspection;
mod rotation;
mod sentinel;
mod tls;

#[path = "../support/mod.rs"]
mod support;
