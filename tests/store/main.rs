//! Both stores against the vectors and the domain core; the Redis store against a real Redis.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test binary: nothing is exported, and what is not as expected shall panic"
)]

#[path = "../support/redis.rs"]
mod redis_server;

mod amend;
mod compare;
mod damaged;
mod holds;
mod layout;
mod live;
mod memory;
mod mutants;
mod outage;
mod parts;
mod random;
mod slots;
mod state;
mod traces;
mod turns;
mod vectors;
