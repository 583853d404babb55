//! Policies of a control plane: a fake one of our own, over sockets and TLS, against the real
//! binary.
//!
//! The fake sends the headers of its answer with its first response, as servers of gRPC in Go do.

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

mod acks;
mod ads;
mod certs;
mod feeds;
mod installed;
mod kept;
mod large;
mod mutual;
mod removals;
mod resources;
mod silence;
mod starting;

#[path = "../support/mod.rs"]
mod support;

use ads::Ads;
use support::tollgate::Options;

/// A tollgate of this control plane, which serves before there is a response.
fn options(ads: &Ads) -> Options {
    let options = Options::default().set(format!("xds.server={}", ads.at));
    options.set("policies.start_without=true").set("policies.default_algorithm=fixed_window")
}
