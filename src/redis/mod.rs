//! How Redis is reached, for counters and for the registry: connect, log in, commands and replies as bytes.
//!
//! * `locate`: where the primary is. `socket`: what carries the bytes.
//! * `connect`: one connection, made. `login`: the user, the database, the script. `backoff`: waits between attempts.
//! * [`RedisSettings`]: the section `redis` of the settings. [`RedisUrl`]: shown without its password.
//! * `resp`: commands and replies as bytes; `wire`: the socket they pass.

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

/// The URL names no Redis that can be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the Redis URL cannot be used: {0}; write redis://[user[:password]@]host[:port][/db]")]
pub struct BadUrl(String);
