//! The duties of every HTTP/2 engine of the gRPC listener, over real sockets with the real
//! tollgate: each test runs on each of `support::engines::ENGINES`. What is known of one engine
//! alone, a difference to the others, is a row of a table here with its reason.
//!
//! * `spec`: h2spec, the conformance suite of HTTP/2 and HPACK.
//! * `corners`: calls at the edges of gRPC, byte by byte, and the answer to each.
//! * `windows`: flow control, in both directions, and the sizes of frames.
//! * `streams`: the bound of concurrent streams.
//! * `ends`: GOAWAY, on shutdown and at the maximum age of a connection; pings.
//! * `holds`: answers that come too late.
//! * `clients`, `tonic`, `nghttp`: clients of gRPC and HTTP/2 in other languages and of other
//!   stacks.
//! * `conn`, `hpack`: a connection written by hand and read frame by frame.
//!
//! Floods are in tests/attacks, which run on every engine as well.

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

mod clients;
mod conn;
mod corners;
mod ends;
mod holds;
mod hpack;
mod nghttp;
mod spec;
mod streams;
mod tonic;
mod windows;

#[path = "../attacks/peer.rs"]
#[allow(dead_code, reason = "shared by test binaries that use a part each")]
mod peer;

#[path = "../support/mod.rs"]
mod support;

const POLICIES: &str = "
domain: d
descriptors:
  - {key: two, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: many, rate_limit: {unit: day, requests_per_unit: 4000000000}}
";

/// A request that passes.
fn many() -> tollgate::edge::pb::RateLimitRequest {
    support::tollgate::request("d", &[&[("many", "v")]])
}
