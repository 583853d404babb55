//! TLS on the listeners: who gets in, who is refused and what the log says of it, and certificates
//! that change under load. Real binary over real sockets.

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

mod callers;
mod commands;
mod engines;
mod house;
mod http;
mod matrix;
mod refused;
mod rotation;
mod secrets;
mod served;
mod settings;

#[path = "../support/mod.rs"]
mod support;
