//! The listeners. gRPC, admin and HTTP accept and serve connections with the same code and the same
//! bounds.
//!
//! * [`acceptor`]: accepts connections, with bounds on their number in total and per peer.
//! * [`tls`]: their handshakes, certificates, and the names of clients. `socket`, `stream`: the
//!   bytes of a connection on its way from the runtime that accepts to the one that serves.
//! * [`connection`]: serves one connection: first bytes, streams, maximum age, drain.
//! * `memory`: the bytes that calls hold while they wait for their peers. `stalled`: peers that do
//!   not read.
//! * `refused`: connections that tollgate closes, in metrics and logs.
//!
//! This module knows no protocol above HTTP; a service answers the requests.

pub mod acceptor;
pub mod connection;
pub(in crate::edge) mod memory;
pub(in crate::edge) mod refused;
mod socket;
mod stalled;
pub(in crate::edge) mod stream;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::settings::{SOME_TIME, section};
use crate::tls::certificate::Names;

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
        max_header_bytes: u32 = "65536" in 4_096..=16 << 20,
        /// Concurrent calls that a listener promises to its connections together, a quarter of them
        /// to one address. A new connection may have a 32nd of those that are left, at most
        /// `max_streams` and at least 16.
        max_calls: usize = "131072" in 1..,
        /// Bytes that the calls of a listener hold while they wait for their peers, a quarter of
        /// them for one address: messages that arrive in parts, large answers that are not read,
        /// and calls that are not decisions. One more call gets `RESOURCE_EXHAUSTED`.
        max_pending_bytes: usize = "268435456" in 1 << 20..,
        /// TLS handshakes in flight on a listener, a quarter of them from one address; one more
        /// connection is closed at once.
        max_handshakes: usize = "256" in 1..,
        /// Time for the TLS handshake of a new connection, then for the HTTP/2 preface or the
        /// headers of an HTTP/1 request.
        handshake_timeout: Duration = "10s",
        /// Time for the message of a call, or the body of a request, to arrive.
        message_timeout: Duration = "10s",
        /// Time for a peer to take bytes of an answer. After that the connection is closed.
        write_timeout: Duration = "10s" in SOME_TIME..,
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
    /// Time for the calls of a connection to finish after that; then it is closed.
    pub grace: Duration,
    /// Interval of pings to an idle peer.
    pub keepalive_interval: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}

/// The peer of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub(in crate::edge) address: SocketAddr,
    /// The names of its certificate; `None` where none is asked for.
    pub(in crate::edge) names: Option<Arc<Names>>,
}

impl Peer {
    /// A peer without a certificate.
    pub const fn in_clear(address: SocketAddr) -> Self {
        Self { address, names: None }
    }
}
