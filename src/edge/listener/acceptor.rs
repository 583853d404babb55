//! The acceptor of a listener: accepts connections within the bounds.
//!
//! A connection beyond a bound is closed at once. With a wait queue, one peer could lock out the
//! others.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::Bounds;
use crate::telemetry::metrics::Metrics;

/// The pause after a failed accept, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The minimum time between two log lines about rejected connections.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A bound listener with its limits on connections.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// The name of the listener in logs.
    name: &'static str,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    open: Arc<OpenConnections>,
    warned: Mutex<Option<Instant>>,
}

/// An accepted connection. Dropping it returns its permit.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, not yet registered with a runtime.
    pub stream: StdStream,
    /// The address of the peer.
    pub peer: SocketAddr,
    /// The permit of this connection.
    pub permit: Permit,
}

/// The permit for one open connection. Dropping it frees the slot.
#[derive(Debug)]
pub struct Permit {
    peer: IpAddr,
    open: Arc<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Acceptor {
    /// Accepts on `listener`, called `name`, within `bounds`.
    pub fn new(
        listener: TcpListener,
        name: &'static str,
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (open, warned) = (Arc::default(), Mutex::default());
        Self { listener, name, bounds, metrics, open, warned }
    }

    /// Accepts the next connection within the bounds.
    ///
    /// # Cancel safety
    /// A dropped call loses no connection.
    pub async fn accept(&self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.metrics.connections.inc();
                    match self.open.acquire(peer.ip(), &self.bounds) {
                        Ok(permit) => match detach(stream) {
                            Ok(stream) => return Accepted { stream, peer, permit },
                            Err(error) => self.not_accepted(&error),
                        },
                        Err(bound) => self.refused(peer, bound),
                    }
                }
                Err(error) => {
                    self.not_accepted(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn not_accepted(&self, error: &io::Error) {
        if self.may_warn() {
            tracing::warn!(listener = self.name, %error, "a connection could not be accepted");
        }
    }

    fn refused(&self, peer: SocketAddr, bound: &'static str) {
        self.metrics.connections_refused.inc();
        if self.may_warn() {
            tracing::warn!(
                listener = self.name, %peer, bound,
                "a connection beyond a bound was closed at once; raise the bound if the connections \
                 are legitimate; tollgate_connections_refused_total counts them"
            );
        }
    }

    fn may_warn(&self) -> bool {
        let (now, mut warned) = (Instant::now(), self.warned.lock());
        let due = warned.is_none_or(|at| now >= at + WARN_EVERY);
        if due {
            *warned = Some(now);
        }
        due
    }
}

/// Prepares a socket to be moved to another runtime.
fn detach(stream: tokio::net::TcpStream) -> io::Result<StdStream> {
    // With Nagle's algorithm small frames would wait for acknowledgements.
    stream.set_nodelay(true)?;
    stream.into_std()
}

impl OpenConnections {
    /// Takes a permit for a connection from `peer`. Fails with the setting of the bound that is
    /// reached.
    fn acquire(self: &Arc<Self>, peer: IpAddr, bounds: &Bounds) -> Result<Permit, &'static str> {
        let mut counts = self.counts.lock();
        if counts.total >= bounds.listener.max_connections {
            return Err("listeners.max_connections");
        }
        let of_peer = counts.by_peer.entry(peer).or_default();
        if *of_peer >= bounds.listener.max_connections_per_peer {
            return Err("listeners.max_connections_per_peer");
        }
        *of_peer += 1;
        counts.total += 1;
        Ok(Permit { peer, open: Arc::clone(self) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_peer) = counts.by_peer.get_mut(&self.peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                counts.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::listener::ListenerSettings;

    #[test]
    fn permits_are_bounded_in_total_and_per_peer_and_come_back() {
        let bounds = Bounds {
            listener: ListenerSettings {
                max_connections: 3,
                max_connections_per_peer: 2,
                ..ListenerSettings::default()
            },
            max_age: None,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
        };
        let open = Arc::new(OpenConnections::default());
        let acquire = |peer: [u8; 4]| open.acquire(peer.into(), &bounds);
        let first = acquire([127, 0, 0, 1]).unwrap();
        let _second = acquire([127, 0, 0, 1]).unwrap();
        assert_eq!(acquire([127, 0, 0, 1]).err(), Some("listeners.max_connections_per_peer"));
        let _third = acquire([127, 0, 0, 2]).unwrap();
        assert_eq!(acquire([127, 0, 0, 3]).err(), Some("listeners.max_connections"));
        drop(first);
        assert!(acquire([127, 0, 0, 1]).is_ok());
        assert_eq!(open.counts.lock().by_peer.len(), 2, "no entry is left of peers that are gone");
    }
}
