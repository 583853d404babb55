//! Redis frozen, killed, slow, full, cut off: no call fails or waits long, and what is admitted
//! stays within the published bound. Real binary, real Redis, callers at a fixed rate, and the
//! checker of admissions over all that they saw.

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

mod busy;
mod callers;
mod refusals;
mod replicas;
mod single;
mod slow;

#[path = "../support/mod.rs"]
mod support;

use tokio::sync::{Mutex, MutexGuard};

/// Each test has the machine to itself: all of them measure time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}
