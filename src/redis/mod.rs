//! Access to Redis for counters and the registry: addresses, connections, log-in and the protocol.
//!
//! * `locate`: the address of the server for a connection, fixed, by `sentinel`, or by the slots of
//!   a `cluster`. `address`: that of one server.
//! * [`Connector`] (`connect`): opens one connection. `open`: the byte stream, a `socket`; `tls`:
//!   certificates. `handshake`: the log-in; `role`: the check that the server is a primary.
//! * `credentials`: user and password, read again from files. `line`: the open connections, which
//!   log in again or end. `watch`: the tasks behind that. `backoff`: waits between attempts.
//! * `inspect`: faults of the server that no decision shows. `refusal`: refused commands.
//! * [`RedisSettings`]: the section `redis` of the settings. [`RedisUrl`]: a URL displayed without
//!   its password.
//! * [`resp`]: encodes commands and decodes replies. `wire`: the buffered socket. `multiplex`: a
//!   connection of the `redis` crate.

mod address;
pub(crate) mod backoff;
pub(crate) mod cluster;
pub(crate) mod connect;
mod credentials;
mod handshake;
pub(crate) mod inspect;
pub(crate) mod line;
mod locate;
pub(crate) mod login;
pub(crate) mod multiplex;
mod open;
mod refusal;
pub mod resp;
mod role;
mod sentinel;
mod settings;
mod socket;
mod tls;
mod url;
mod watch;
pub(crate) mod wire;

pub(crate) use self::address::Address;
pub use self::connect::Connector;
pub use self::settings::{RedisSettings, SentinelSettings, Topology};
pub use self::tls::TlsSettings;
pub use self::url::RedisUrl;
use crate::tls::TlsFault;

/// The error for settings that lead to no Redis.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL cannot be used.
    #[error(
        "the Redis URL cannot be used: {0}; write redis://[user[:password]@]host[:port][/db], or \
         rediss:// for TLS"
    )]
    Url(String),
    /// Another setting cannot be used.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting, dotted.
        setting: &'static str,
        /// The reason.
        reason: String,
    },
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
}
