//! Both forms of the registry against one suite; followers through lost notices, restarts and lost
//! writes; the file through kill -9.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test binary: nothing is exported, and what is not as expected shall panic"
)]

#[path = "../support/redis.rs"]
mod redis_server;

mod file;
mod follow;
mod lost;
mod map;
mod outage;
mod start;
mod suite;
