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
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::memory::{Memory, Pending};
use super::refused::{Reason, Refusal, Refusals};
use super::stalled::Stalled;
use super::stream::{Detached, Stream};
use super::tls::{Established, Tls};
use super::{Bounds, ListenerSettings, Peer};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::sharded::{Counted, ShardedGauge};
use crate::tls::certificate::Names;

/// The pause after a failed accept, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The share of the handshakes in flight, and of the calls, that one address may have: one in so
/// many.
const PEER_SHARE: usize = 4;

/// The share that a new connection may have of the calls that are left: one in so many. The first
/// connections may have all that they can use, and a flood of them does not take all that is left.
const CONNECTION_SHARE: usize = 32;

/// The concurrent calls that every connection may have.
const LEAST_CALLS: u32 = 16;

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
    pending: Arc<Pending>,
    refusals: Refusals,
    /// Connections whose handshake is done.
    established: (UnboundedSender<Accepted>, UnboundedReceiver<Accepted>),
}

/// An accepted connection that belongs to no runtime yet.
pub struct Accepted {
    stream: Detached,
    peer: Peer,
    admitted: Admitted,
}

/// The state of its listener that an accepted connection uses.
struct Admitted {
    address: SocketAddr,
    permit: Permit,
    memory: Memory,
    write_timeout: Duration,
    refusals: Refusals,
}

/// A connection on its runtime. Dropping it returns its permit.
#[derive(Debug)]
pub(in crate::edge) struct Connection {
    pub(super) stream: Stream,
    /// Its peer.
    pub(in crate::edge) peer: Peer,
    /// The memory for its calls.
    pub(in crate::edge) memory: Memory,
    pub(super) permit: Permit,
    pub(super) refusals: Refusals,
}

/// The permit for one open connection. Dropping it frees the slot.
#[derive(Debug)]
pub(in crate::edge) struct Permit {
    peer: IpAddr,
    /// True until the handshake is done.
    shaking: bool,
    /// The concurrent calls that the connection may have.
    calls: u32,
    /// Counts it among the connections of its core, until it is closed.
    counted: Option<Counted>,
    open: Arc<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    counts: Mutex<Counts>,
    gauge: Gauge,
    streams: ShardedGauge,
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
    /// The concurrent calls that they may have.
    calls: usize,
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
        let open = Arc::new(OpenConnections {
            counts: Mutex::default(),
            gauge: metrics.listeners.open(name),
            streams: metrics.listeners.streams(name),
        });
        let established = unbounded_channel();
        let pending = Arc::new(Pending::new(bounds.listener.max_pending_bytes));
        Self { listener, name, bounds, tls, metrics, open, pending, refusals, established }
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
                        // A peer over IPv4 is the same on a listener for both.
                        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
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
        let admitted = self.admitted(address, permit);
        if let Some(tls) = &self.tls {
            self.shake_hands(Arc::clone(tls), stream, admitted);
            return None;
        }
        match stream.into_std() {
            Ok(stream) => Some(admitted.ready(Detached::Plain(stream), None)),
            Err(error) => {
                self.refusals.not_accepted(&error);
                None
            }
        }
    }

    fn admitted(&self, address: SocketAddr, permit: Permit) -> Admitted {
        let (pending, refusals) = (Arc::clone(&self.pending), self.refusals.clone());
        let memory = Memory::new(address, pending, refusals.clone());
        let write_timeout = self.bounds.listener.write_timeout;
        Admitted { address, permit, memory, write_timeout, refusals }
    }

    /// Does a handshake beside all else.
    fn shake_hands(&self, tls: Arc<Tls>, stream: TcpStream, mut admitted: Admitted) {
        let (metrics, name) = (Arc::clone(&self.metrics), self.name);
        let (timeout, done) = (self.bounds.listener.handshake_timeout, self.established.0.clone());
        tokio::spawn(async move {
            let Established { stream, names } = match tls.accept(stream, timeout).await {
                Ok(established) => established,
                Err(refusal) => return admitted.refusals.note(admitted.address, &refusal),
            };
            metrics.listeners.handshake(name);
            admitted.permit.shaken();
            match Detached::of_tls(stream) {
                // Nobody receives once the listener is closed; then the connection is, too.
                Ok(stream) => drop(done.send(admitted.ready(stream, names))),
                Err(error) => admitted.refusals.not_accepted(&error),
            }
        });
    }
}

impl Admitted {
    fn ready(self, stream: Detached, names: Option<Arc<Names>>) -> Accepted {
        let peer = Peer { address: self.address, names };
        Accepted { stream, peer, admitted: self }
    }
}

fn beyond(bound: &'static str) -> Refusal {
    let text = format!("it is beyond {bound}; raise it if the connections are legitimate");
    Refusal::new(Reason::Bound, text)
}

impl Accepted {
    /// The same, counted by `connections` as long as it is open.
    #[must_use]
    pub fn counted_by(mut self, connections: &ShardedGauge) -> Self {
        self.admitted.permit.counted = Some(connections.hold());
        self
    }

    /// Registers the connection with the runtime that calls this.
    pub(in crate::edge) fn attach(self) -> io::Result<Connection> {
        let Self { stream, peer, admitted } = self;
        let Admitted { address, permit, memory, write_timeout, refusals } = admitted;
        let stream = stream.attach(Stalled::new(write_timeout, address, refusals.clone()))?;
        Ok(Connection { stream, peer, memory, permit, refusals })
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
        let calls = promise(bounds, total.calls, of_peer.calls);
        counts.change(peer, |count| {
            count.open += 1;
            count.shaking += usize::from(shaking);
            count.calls += calls as usize;
        });
        self.gauge.inc();
        Ok(Permit { peer, shaking, calls, counted: None, open: Arc::clone(self) })
    }
}

/// The concurrent calls that a new connection may have, where `total` are promised to all
/// connections and `of_peer` to those of its address.
fn promise(bounds: &ListenerSettings, total: usize, of_peer: usize) -> u32 {
    let left = bounds.max_calls.saturating_sub(total);
    let left = left.min((bounds.max_calls / PEER_SHARE).saturating_sub(of_peer));
    let share = u32::try_from(left / CONNECTION_SHARE).unwrap_or(u32::MAX);
    share.max(LEAST_CALLS).min(bounds.max_streams)
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
    /// The concurrent calls that the connection may have.
    pub(super) const fn calls(&self) -> u32 {
        self.calls
    }

    /// The number of calls in progress on all connections of the listener.
    pub(in crate::edge) fn streams(&self) -> ShardedGauge {
        self.open.streams.clone()
    }

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
        let calls = self.calls as usize;
        let closed = |count: &mut Count| {
            count.open = count.open.saturating_sub(1);
            count.calls = count.calls.saturating_sub(calls);
        };
        self.open.counts.lock().change(self.peer, closed);
        self.open.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn first_connections_are_promised_most_and_every_one_some_calls() {
        let bounds = ListenerSettings { max_calls: 131_072, ..ListenerSettings::default() };
        assert_eq!(promise(&bounds, 0, 0), 1_024);
        assert_eq!(promise(&bounds, 0, 16_384), 512, "half of a quarter is left");
        assert_eq!(promise(&bounds, 0, 32_768), 16, "a quarter is taken");
        assert_eq!(promise(&bounds, 131_072, 0), 16, "all are taken");
        let few = ListenerSettings { max_streams: 3, ..bounds };
        assert_eq!(promise(&few, 131_072, 0), 3);
    }

    fn bounds() -> Bounds {
        Bounds {
            listener: ListenerSettings::default(),
            max_age: None,
            grace: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
        }
    }
}
