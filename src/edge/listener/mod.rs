//! The one way in: gRPC, admin and HTTP accept connections and serve them by the same code and the same bounds.
//!
//! * [`door`]: accepting, with a bound on connections in all and per peer.
//! * [`connection`]: one connection, from its first byte to its end: handshake, streams, age, drain.
//!
//! It knows no protocol above HTTP: a service answers requests.

pub mod connection;
pub mod door;

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

/// What a peer may take of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The bounds of every listener.
    pub listener: ListenerSettings,
    /// Age at which a connection gets GOAWAY, so that load spreads over new replicas; none: never.
    pub max_age: Option<Duration>,
    /// Interval of pings to an idle peer.
    pub keepalive_interval: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}
