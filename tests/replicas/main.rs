//! Three replicas on one Redis, and 64 callers. Replicas are killed and started again, policies and
//! clients change, slots of a cluster move: no limit is exceeded and every answer is Redis' own.
//! Real binary, real Redis, and the checker of admissions over all that the callers saw.

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
mod changes;
mod fleet;
mod holds;
mod operators;
mod rotation;
mod run;
mod topologies;
mod verdict;
mod watched;

#[path = "../support/mod.rs"]
mod support;
