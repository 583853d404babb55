//! The memory that the calls of a listener hold while they wait for their peers.
//!
//! Most calls wait for nothing: their message is there when they begin, and their answer is small
//! and leaves at once. They are not counted, so counting costs them nothing. Counted are messages
//! that arrive in parts, large answers until they are written, and all calls that are not
//! decisions. The sum is bounded by `listeners.max_pending_bytes`, a quarter of it for one address,
//! so that one address cannot take the room of the others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::refused::Refusals;

/// The share of the bytes that one address may hold: one in so many.
const PEER_SHARE: usize = 4;

/// Up to this size an answer is not counted: it is part of the memory of a stream.
const SMALL_ANSWER: usize = 4 << 10;

/// The bytes that calls of one listener hold.
#[derive(Debug)]
pub(super) struct Pending {
    max: usize,
    held: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// The account of one peer with its listener.
#[derive(Clone, Debug)]
pub(in crate::edge) struct Memory(Arc<Account>);

#[derive(Debug)]
struct Account {
    peer: SocketAddr,
    pending: Arc<Pending>,
    refusals: Refusals,
}

/// Bytes that are held. Dropping it returns them.
#[derive(Debug)]
pub(in crate::edge) struct Held {
    memory: Memory,
    bytes: usize,
}

/// The reason why a call is not served: there is no room for it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the listener has no memory left for this call, listeners.max_pending_bytes")]
pub(in crate::edge) struct NoRoom;

impl Pending {
    pub(super) fn new(max: usize) -> Self {
        Self { max, held: Mutex::default() }
    }

    fn take(&self, peer: IpAddr, bytes: usize) -> Result<(), NoRoom> {
        let mut held = self.held.lock();
        let of_peer = held.by_peer.get(&peer).copied().unwrap_or_default();
        let (total, of_peer) = (held.total.saturating_add(bytes), of_peer.saturating_add(bytes));
        if total > self.max || of_peer > self.max / PEER_SHARE {
            return Err(NoRoom);
        }
        held.total = total;
        held.by_peer.insert(peer, of_peer);
        Ok(())
    }

    fn give_back(&self, peer: IpAddr, bytes: usize) {
        let mut held = self.held.lock();
        held.total = held.total.saturating_sub(bytes);
        if let Some(of_peer) = held.by_peer.get_mut(&peer) {
            *of_peer = of_peer.saturating_sub(bytes);
            if *of_peer == 0 {
                held.by_peer.remove(&peer);
            }
        }
    }
}

impl Memory {
    pub(super) fn new(peer: SocketAddr, pending: Arc<Pending>, refusals: Refusals) -> Self {
        Self(Arc::new(Account { peer, pending, refusals }))
    }

    /// Holds `bytes` for a call.
    ///
    /// # Errors
    /// Fails, counted and logged, if the listener or the address of the peer has no room for them.
    pub(in crate::edge) fn hold(&self, bytes: usize) -> Result<Held, NoRoom> {
        self.take(bytes)?;
        Ok(Held { memory: self.clone(), bytes })
    }

    /// The bytes of an answer, which are held until they are written if they are many.
    ///
    /// # Errors
    /// Fails as [`Self::hold`].
    pub(in crate::edge) fn answer(&self, bytes: Bytes) -> Result<Bytes, NoRoom> {
        if bytes.len() <= SMALL_ANSWER {
            return Ok(bytes);
        }
        let held = self.hold(bytes.len())?;
        Ok(Bytes::from_owner(HeldBytes { bytes, _held: held }))
    }

    fn take(&self, bytes: usize) -> Result<(), NoRoom> {
        let Account { peer, pending, refusals } = &*self.0;
        pending.take(peer.ip(), bytes).inspect_err(|error| refusals.shed(*peer, error))
    }
}

impl Held {
    /// Holds `more` bytes.
    fn grow(&mut self, more: usize) -> Result<(), NoRoom> {
        self.memory.take(more)?;
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Account { peer, pending, .. } = &*self.memory.0;
        pending.give_back(peer.ip(), self.bytes);
    }
}

struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of a request that is not a decision. All that has arrived of it is held until it is
/// dropped, because its service may keep it until the message is whole.
#[derive(Debug)]
pub(in crate::edge) struct HeldRequest<B> {
    body: B,
    held: Held,
}

impl<B> HeldRequest<B> {
    pub(in crate::edge) const fn new(body: B, held: Held) -> Self {
        Self { body, held }
    }
}

impl<B> Body for HeldRequest<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            return polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        };
        let more = frame.data_ref().map_or(0, Bytes::len);
        match this.held.grow(more) {
            Ok(()) => Poll::Ready(Some(Ok(frame))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, with what is held until all of it has left.
#[derive(Debug)]
pub(in crate::edge) struct HeldAnswer<B> {
    body: B,
    _held: Held,
}

impl<B> HeldAnswer<B> {
    pub(in crate::edge) const fn new(body: B, held: Held) -> Self {
        Self { body, _held: held }
    }
}

impl<B: Body + Unpin> Body for HeldAnswer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn of_peer(last: u8, pending: &Arc<Pending>) -> Memory {
        let refusals = Refusals::new("grpc", Arc::new(Metrics::new(1)));
        Memory::new(SocketAddr::from(([127, 0, 0, last], 1)), Arc::clone(pending), refusals)
    }

    #[test]
    fn bytes_are_bounded_in_total_and_to_a_quarter_per_peer_and_come_back() {
        let pending = Arc::new(Pending::new(400));
        let first = of_peer(1, &pending);
        let mut held = first.hold(60).unwrap();
        held.grow(40).unwrap();
        assert!(first.hold(1).is_err() && held.grow(1).is_err(), "a quarter");
        let others: Vec<_> = (2..5).map(|i| of_peer(i, &pending).hold(100).unwrap()).collect();
        assert!(of_peer(9, &pending).hold(1).is_err(), "all");
        drop((held, others));
        assert!(first.hold(100).is_ok());
        let held = pending.held.lock();
        assert_eq!((held.total, held.by_peer.len()), (0, 0));
    }

    #[test]
    fn large_answers_are_held_until_their_bytes_are_dropped() {
        let pending = Arc::new(Pending::new(4 * SMALL_ANSWER * 2));
        let memory = of_peer(1, &pending);
        let bytes = |count: usize| Bytes::from(vec![7; count]);
        let small = memory.answer(bytes(SMALL_ANSWER)).unwrap();
        assert_eq!(pending.held.lock().total, 0);
        let large = memory.answer(bytes(SMALL_ANSWER + 1)).unwrap();
        assert_eq!(large, bytes(SMALL_ANSWER + 1));
        let part = large.slice(1..2);
        drop((small, large));
        assert_eq!(pending.held.lock().total, SMALL_ANSWER + 1);
        drop(part);
        assert_eq!(pending.held.lock().total, 0);
    }
}
