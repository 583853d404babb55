//! The acceptor of a listener: accepts connections within the bounds, and does their handshakes.
//!
//! A connection beyond a bound is closed at once. With a wait queue, one peer could lock out the
//! others. Handshakes of TLS run side by side on the runtime that accepts.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::refused::{Reason, Refusal, Refusals};
use super::stream::{Detached, Stream};
use super::tls::{Established, Tls};
use super::{Bounds, Peer};
use crate::telemetry::metrics::Metrics;

/// The pause after a failed accept, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The share of the handshakes in flight that one peer may have: one in so many.
const PEER_SHARE: usize = 4;

/// A bound listener with its limits on connections.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// The name of the listener in logs and metrics.
    name: &'static str,
    bounds: Bounds,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    open: Arc<OpenConnections>,
    refusals: Refusals,
    /// Connections whose handshake is done.
    established: (UnboundedSender<Accepted>, UnboundedReceiver<Accepted>),
}

/// An accepted connection that belongs to no runtime yet.
pub struct Accepted {
    stream: Detached,
    peer: Peer,
    permit: Permit,
    refusals: Refusals,
}

/// A connection on its runtime. Dropping it returns its permit.
#[derive(Debug)]
pub(in crate::edge) struct Connection {
    pub(super) stream: Stream,
    /// Who has opened it.
    pub(in crate::edge) peer: Peer,
    pub(super) permit: Permit,
    pub(super) refusals: Refusals,
}

/// The permit for one open connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Permit {
    peer: IpAddr,
    /// True until the handshake is done.
    shaking: bool,
    open: Arc<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: Count,
    by_peer: HashMap<IpAddr, Count>,
}

/// Connections of all peers, or of one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    open: usize,
    /// Those of them whose handshake is not done.
    shaking: usize,
}

impl Acceptor {
    /// Accepts on `listener`, called `name`, within `bounds`; over `tls` or in clear.
    pub fn new(
        listener: TcpListener,
        name: &'static str,
        bounds: Bounds,
        tls: Option<Arc<Tls>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let refusals = Refusals::new(name, Arc::clone(&metrics));
        let (open, established) = (Arc::default(), unbounded_channel());
        Self { listener, name, bounds, tls, metrics, open, refusals, established }
    }

    /// Accepts the next connection within the bounds whose handshake is done.
    ///
    /// # Cancel safety
    /// A dropped call loses no connection.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        if let Some(accepted) = self.admit(stream, address) {
                            return accepted;
                        }
                    }
                    Err(error) => {
                        self.refusals.not_accepted(&error);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(accepted) = self.established.1.recv() => return accepted,
            }
        }
    }

    /// Takes a connection in; without TLS it is ready at once.
    fn admit(&self, stream: TcpStream, address: SocketAddr) -> Option<Accepted> {
        self.metrics.listeners.accepted.inc();
        let permit = match self.open.acquire(address.ip(), &self.bounds, self.tls.is_some()) {
            Ok(permit) => permit,
            Err(bound) => {
                self.refusals.note(address, &beyond(bound));
                return None;
            }
        };
        // With Nagle's algorithm small frames would wait for acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            self.refusals.not_accepted(&error);
            return None;
        }
        let refusals = self.refusals.clone();
        if let Some(tls) = &self.tls {
            self.shake_hands(Arc::clone(tls), stream, address, permit);
            return None;
        }
        match stream.into_std() {
            Ok(stream) => {
                let peer = Peer::in_clear(address);
                Some(Accepted { stream: Detached::Plain(stream), peer, permit, refusals })
            }
            Err(error) => {
                refusals.not_accepted(&error);
                None
            }
        }
    }

    /// Does a handshake beside all else.
    fn shake_hands(
        &self,
        tls: Arc<Tls>,
        stream: TcpStream,
        address: SocketAddr,
        mut permit: Permit,
    ) {
        let (refusals, metrics, name) =
            (self.refusals.clone(), Arc::clone(&self.metrics), self.name);
        let (timeout, done) = (self.bounds.listener.handshake_timeout, self.established.0.clone());
        tokio::spawn(async move {
            let Established { stream, names } = match tls.accept(stream, timeout).await {
                Ok(established) => established,
                Err(refusal) => return refusals.note(address, &refusal),
            };
            metrics.listeners.handshake(name);
            permit.shaken();
            match Detached::of_tls(stream) {
                // Nobody receives once the listener is closed; then the connection is, too.
                Ok(stream) => {
                    let peer = Peer { address, names };
                    drop(done.send(Accepted { stream, peer, permit, refusals }));
                }
                Err(error) => refusals.not_accepted(&error),
            }
        });
    }
}

fn beyond(bound: &'static str) -> Refusal {
    let text = format!("it is beyond {bound}; raise it if the connections are legitimate");
    Refusal::new(Reason::Bound, text)
}

impl Accepted {
    /// Registers the connection with the runtime that calls this.
    pub(in crate::edge) fn attach(self) -> io::Result<Connection> {
        let Self { stream, peer, permit, refusals } = self;
        Ok(Connection { stream: stream.attach()?, peer, permit, refusals })
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl OpenConnections {
    /// Takes a permit for a connection from `peer`, which has a handshake before it or not. Fails
    /// with the setting of the bound that is reached.
    fn acquire(
        self: &Arc<Self>,
        peer: IpAddr,
        bounds: &Bounds,
        shaking: bool,
    ) -> Result<Permit, &'static str> {
        let bounds = &bounds.listener;
        let mut counts = self.counts.lock();
        let (total, of_peer) = (counts.total, counts.by_peer.get(&peer).copied());
        let of_peer = of_peer.unwrap_or_default();
        if total.open >= bounds.max_connections {
            return Err("listeners.max_connections");
        }
        if of_peer.open >= bounds.max_connections_per_peer {
            return Err("listeners.max_connections_per_peer");
        }
        let share = (bounds.max_handshakes / PEER_SHARE).max(1);
        if shaking && (total.shaking >= bounds.max_handshakes || of_peer.shaking >= share) {
            return Err("listeners.max_handshakes");
        }
        counts.change(peer, |count| {
            count.open += 1;
            count.shaking += usize::from(shaking);
        });
        Ok(Permit { peer, shaking, open: Arc::clone(self) })
    }
}

impl Counts {
    fn change(&mut self, peer: IpAddr, change: impl Fn(&mut Count)) {
        change(&mut self.total);
        let of_peer = self.by_peer.entry(peer).or_default();
        change(of_peer);
        if *of_peer == Count::default() {
            self.by_peer.remove(&peer);
        }
    }
}

impl Permit {
    /// Notes that the handshake is done.
    fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking) {
            let shaken = |count: &mut Count| count.shaking = count.shaking.saturating_sub(1);
            self.open.counts.lock().change(self.peer, shaken);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shaken();
        let closed = |count: &mut Count| count.open = count.open.saturating_sub(1);
        self.open.counts.lock().change(self.peer, closed);
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
            ..bounds()
        };
        let open = Arc::new(OpenConnections::default());
        let acquire = |peer: [u8; 4]| open.acquire(peer.into(), &bounds, false);
        let first = acquire([127, 0, 0, 1]).unwrap();
        let _second = acquire([127, 0, 0, 1]).unwrap();
        assert_eq!(acquire([127, 0, 0, 1]).err(), Some("listeners.max_connections_per_peer"));
        let _third = acquire([127, 0, 0, 2]).unwrap();
        assert_eq!(acquire([127, 0, 0, 3]).err(), Some("listeners.max_connections"));
        drop(first);
        assert!(acquire([127, 0, 0, 1]).is_ok());
        assert_eq!(open.counts.lock().by_peer.len(), 2, "no entry is left of peers that are gone");
    }
    #[test]
    fn handshakes_are_bounded_in_total_and_to_a_quarter_per_peer() {
        let listener = ListenerSettings { max_handshakes: 8, ..ListenerSettings::default() };
        let bounds = Bounds { listener, ..bounds() };
        let open = Arc::new(OpenConnections::default());
        let acquire = |peer: [u8; 4]| open.acquire(peer.into(), &bounds, true);
        let mut first = acquire([127, 0, 0, 1]).unwrap();
        let second = acquire([127, 0, 0, 1]).unwrap();
        assert_eq!(acquire([127, 0, 0, 1]).err(), Some("listeners.max_handshakes"));
        first.shaken();
        let third = acquire([127, 0, 0, 1]).unwrap();
        let mut others: Vec<Permit> =
            (0..6).map(|i| acquire([127, 0, 1, i / 2]).unwrap()).collect();
        assert_eq!(acquire([127, 0, 0, 9]).err(), Some("listeners.max_handshakes"));
        others.pop();
        assert!(acquire([127, 0, 0, 9]).is_ok());
        drop((first, second, third, others));
        assert_eq!(open.counts.lock().by_peer.len(), 0);
        assert_eq!(open.counts.lock().total, Count::default());
    }

    fn bounds() -> Bounds {
        Bounds {
            listener: ListenerSettings::default(),
            max_age: None,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
        }
    }
}
