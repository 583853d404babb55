//! The whole stack as deploy/ ships it: clients, the real Envoy with deploy/envoy/envoy.yaml, two tollgates with
//! deploy/policies/edge.yaml that share a real Redis, three sample backends.
//!
//! Envoy lets requests pass when it gets no answer, so every test ends with
//! [`stack::Stack::assert_nothing_was_bypassed`]: otherwise most would hold with tollgate switched off, too. The one
//! exception is about how long Envoy is shipped to wait; the other tests let it wait longer. Every test has a stack
//! of its own; they run one after the other, as some are about time.

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

mod answers;
mod backends;
mod brown_out;
mod delays;
mod demo;
mod engines;
mod failures;
mod holds;
mod limits;
mod mutual;
mod observed;
mod operators;
mod outages;
mod stack;
mod traces;
mod traffic;

#[path = "../support/collector.rs"]
#[allow(dead_code, reason = "shared by test binaries that use a part each")]
mod collector;
#[path = "../recipes/edge.rs"]
mod edge;
#[path = "../recipes/page.rs"]
#[allow(dead_code, reason = "shared by test binaries that use a part each")]
mod page;
#[path = "../support/mod.rs"]
mod support;
