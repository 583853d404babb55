//! How Redis is reached, for counters and for the registry: connect, log in, commands and replies as bytes.
//!
//! * `connect`: how a connection is made. `lend`: how the Redis client logs in for us.
//! * `resp`: commands and replies as bytes; `wire`: the socket they pass.

pub(crate) mod connect;
mod lend;
pub(crate) mod resp;
pub(crate) mod wire;

/// The URL names no Redis that can be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the Redis URL cannot be used: {0}; write redis://[user[:password]@]host[:port][/db]")]
pub struct BadUrl(pub(crate) String);
