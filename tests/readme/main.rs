//! The README is true: its examples are run as they are written, its tables are compared with the code. So are the
//! examples in the comments of proto/tollgate/v1.
//!
//! Comments in the README, invisible when it is rendered, say what a block or table is; `markdown` lists them. The
//! prose between is not checked.

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

mod examples;
mod files;
mod markdown;
mod protos;
mod tables;

#[path = "../support/mod.rs"]
mod support;
