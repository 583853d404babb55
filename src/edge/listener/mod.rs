//! The listeners. gRPC, admin and HTTP accept and serve connections with the same code and the same
//! bounds.
//!
//! * [`acceptor`]: accepts connections, with bounds on their number in total and per peer.
//! * [`connection`]: serves one connection: handshake, streams, maximum age, drain.
//!
//! This module knows no protocol above HTTP; a service answers the requests.

pub mod acceptor;
pub mod connection;

use std::time::Duration;

use crate::settings::section;

section! {
    /// Bounds of the gRPC, admin and HTTP listeners. Each listener counts by itself.
    pub struct ListenerSettings in "listeners" {
        /// Open connections of a listener; one more is closed at once.
        max_connections: usize = "10000" in 1..,
        /// Open connections from one address. Envoy keeps one connection per worker.
        max_connections_per_peer: usize = "1000" in 1..,
        /// Concurrent calls on one HTTP/2 connection. Envoy opens another connection when it needs
        /// more.
        max_streams: u32 = "1024" in 1..=1 << 20,
        /// Bytes of the headers of one request over HTTP/2.
        max_header_bytes: u32 = "262144" in 4_096..=16 << 20,
        /// Time for the HTTP/2 preface of a new connection, or for the headers of an HTTP/1
        /// request.
        handshake_timeout: Duration = "10s",
        /// Time for the message of a call, or the body of a request, to arrive.
        message_timeout: Duration = "10s",
    }
}

/// The bounds of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The bounds of every listener.
    pub listener: ListenerSettings,
    /// Age at which a connection gets GOAWAY, so that load spreads to new replicas. `None`:
    /// unlimited.
    pub max_age: Option<Duration>,
    /// Interval of pings to an idle peer.
    pub keepalive_interval: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}
