//! The README and the docs are true: their examples run as they are written, their tables are compared with the code,
//! their links lead to a page and a heading. So do the examples in the comments of proto/tollgate/v1.
//!
//! Comments in the pages, invisible when they are rendered, say what a block or table is; `markdown` lists them. The
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
mod layout;
mod links;
mod markdown;
mod protos;
mod settings;
mod shape;
mod tables;

#[path = "../support/mod.rs"]
mod support;
