//! The one way in: gRPC, admin and HTTP accept connections and serve them by the same code and the same bounds.
//!
//! * [`door`]: accepting, with a bound on connections in all and per peer.
//! * [`connection`]: one connection, from its first byte to its end: handshake, streams, age, drain.
//!
//! It knows no protocol above HTTP: a service answers requests.

pub mod connection;
pub mod door;

use std::time::Duration;

/// What a peer may take of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open connections of one listener.
    pub connections: usize,
    /// Open connections of one listener from one address.
    pub connections_per_peer: usize,
    /// Calls under way on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of the headers of one request.
    pub header_bytes: u32,
    /// Until the first bytes of HTTP have come, and on HTTP/1 the headers of each request.
    pub handshake_timeout: Duration,
    /// Until the message of a call, or the body of a request, has come.
    pub message_timeout: Duration,
    /// After this a connection is told to go elsewhere, so that load spreads over new replicas; none: never.
    pub max_age: Option<Duration>,
    /// How often an idle peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
}
