//! Access to Redis for counters and the registry: addresses, connections, log-in and the protocol.
//!
//! * `locate`: the address of the primary. `socket`: the byte stream.
//! * `connect`: opens one connection. `login`: user, database and script. `backoff`: waits between
//!   attempts.
//! * [`RedisSettings`]: the section `redis` of the settings. [`RedisUrl`]: a URL displayed without
//!   its password.
//! * `resp`: encodes commands and decodes replies. `wire`: the buffered socket.

pub(crate) mod backoff;
pub(crate) mod connect;
mod locate;
mod login;
pub(crate) mod resp;
mod settings;
mod socket;
mod url;
pub(crate) mod wire;

pub use self::settings::RedisSettings;
pub use self::url::RedisUrl;

/// The error for a Redis URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the Redis URL cannot be used: {0}; write redis://[user[:password]@]host[:port][/db]")]
pub struct BadUrl(String);
