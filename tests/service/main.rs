//! The real binary over real sockets, with the real Redis behind it. One binary, as linking is what takes the time.

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

mod adaptive;
mod admin;
mod admin_cli;
mod admin_plan;
mod admission;
mod answers;
mod audit;
mod bounds;
mod calendar;
mod cli;
mod clients;
mod conformance;
mod control;
mod costs;
mod debug;
mod decisions;
mod durability;
mod edge;
mod engines;
mod events;
mod explain;
mod hold_service;
mod holds;
mod hostile;
mod json;
mod load;
mod logs;
mod memory;
mod metrics;
mod modes;
mod outage;
mod page;
mod plans;
mod reference;
mod reload;
mod remembered;
mod scales;
mod sensitive;
mod settled;
mod silence;
mod snippets;
mod spread;
mod stale;
mod statsd;
mod stores;
mod top;
mod traces;
mod turns;
mod unnamed;
mod unwritable;
mod verify;
mod versions;
mod waits;

#[path = "../support/collector.rs"]
mod collector;
#[path = "../store/random.rs"]
mod random;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/traffic.rs"]
#[allow(dead_code, reason = "shared by test binaries that use a part each")]
mod traffic;
