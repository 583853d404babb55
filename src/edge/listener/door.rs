//! Accepting connections, no more than the bounds allow.
//!
//! A connection beyond a bound is closed at once: waiting would let one peer keep the others out.

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

/// The pause after a failure to accept, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The shortest time between two log lines about connections that were closed at the door.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A bound listener.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    /// The listener's name in logs and metrics.
    name: &'static str,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    open: Arc<Open>,
    warned: Mutex<Option<Instant>>,
}

/// An accepted connection. Its place is free again when this is dropped.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, which belongs to no runtime yet.
    pub stream: StdStream,
    /// The other end.
    pub peer: SocketAddr,
    /// Holds the place.
    pub place: Place,
}

/// One of the connections that a listener may have open.
#[derive(Debug)]
pub struct Place {
    peer: IpAddr,
    open: Arc<Open>,
}

#[derive(Debug, Default)]
struct Open {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Door {
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

    /// The next connection within the bounds.
    ///
    /// # Cancel safety
    /// A dropped call loses no connection.
    pub async fn accept(&self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.metrics.connections.inc();
                    match self.open.enter(peer.ip(), &self.bounds) {
                        Ok(place) => match prepared(stream) {
                            Ok(stream) => return Accepted { stream, peer, place },
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
                "a connection was closed at once, and others may be: raise the bound if it is \
                 needed; tollgate_connections_refused_total counts them"
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

/// The connection as any runtime can take it over.
fn prepared(stream: tokio::net::TcpStream) -> io::Result<StdStream> {
    // Without it small frames wait for acknowledgements (Nagle's algorithm).
    stream.set_nodelay(true)?;
    stream.into_std()
}

impl Open {
    /// A place for a connection from `peer`, or the setting of the bound that it is beyond.
    fn enter(self: &Arc<Self>, peer: IpAddr, bounds: &Bounds) -> Result<Place, &'static str> {
        let mut counts = self.counts.lock();
        if counts.all >= bounds.listener.max_connections {
            return Err("listeners.max_connections");
        }
        let of_peer = counts.by_peer.entry(peer).or_default();
        if *of_peer >= bounds.listener.max_connections_per_peer {
            return Err("listeners.max_connections_per_peer");
        }
        *of_peer += 1;
        counts.all += 1;
        Ok(Place { peer, open: Arc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock();
        counts.all = counts.all.saturating_sub(1);
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
    fn places_are_bounded_in_all_and_per_peer_and_come_back() {
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
        let open = Arc::new(Open::default());
        let enter = |peer: [u8; 4]| open.enter(peer.into(), &bounds);
        let first = enter([127, 0, 0, 1]).unwrap();
        let _second = enter([127, 0, 0, 1]).unwrap();
        assert_eq!(enter([127, 0, 0, 1]).err(), Some("listeners.max_connections_per_peer"));
        let _third = enter([127, 0, 0, 2]).unwrap();
        assert_eq!(enter([127, 0, 0, 3]).err(), Some("listeners.max_connections"));
        drop(first);
        assert!(enter([127, 0, 0, 1]).is_ok());
        assert_eq!(open.counts.lock().by_peer.len(), 2, "no entry is left of peers that are gone");
    }
}
