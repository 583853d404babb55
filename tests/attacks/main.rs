//! Attacks on the listeners, one row each: what they can take of memory, what a well-behaved caller
//! sees of them, and what tells operators of them. Real binary, raw sockets.
//!
//! * `field`: runs a row: a caller before and during the attack, and the memory of the process.
//! * `formula`: what the table of docs/operations.md allows a row.
//! * `peer`: a connection written frame by frame. `tls`: the same over TLS.
//! * All others: the rows.

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

mod admin;
mod engines;
mod field;
mod floods;
mod formula;
mod frames;
mod headers;
mod http1;
mod idle;
mod messages;
mod peer;
mod readers;
mod resets;
mod shakes;
mod tls;

#[path = "../support/mod.rs"]
mod support;
