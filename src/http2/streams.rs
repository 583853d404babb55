//! The streams of a connection: those that are open, and the last ones that were closed.

use bytes::Bytes;
use hashbrown::HashMap;

/// The closed streams that are remembered. A frame on one of them is late, on an older one it is
/// treated as if the stream had never been.
const REMEMBERED: usize = 64;

/// An open stream. One whose both sides have ended is closed, and is not kept.
#[derive(Debug)]
pub(super) struct Stream {
    /// The turn in which it was opened.
    pub(super) turn: u64,
    /// The peer has not ended its side.
    pub(super) receiving: bool,
    /// The bytes that the peer may send.
    pub(super) receive_window: u32,
    /// The bytes that were read since the last update of that window.
    pub(super) released: u32,
    /// The bytes of the body that are still to come, if they were announced.
    pub(super) announced: Option<u64>,
    pub(super) sending: Sending,
}

/// The side of a stream that answers.
#[derive(Debug)]
pub(super) struct Sending {
    /// The bytes that the peer takes; negative after it has made its windows smaller.
    pub(super) window: i64,
    /// It waits for the window of the connection.
    pub(super) queued: bool,
    /// Bytes that wait for a window.
    pub(super) waiting: Bytes,
    /// The end, after those bytes.
    pub(super) end: Option<End>,
}

/// The end of an answer.
#[derive(Debug)]
pub enum End {
    /// `END_STREAM`, without trailers.
    Bare,
    /// Trailers, as a block of headers.
    Trailers(Vec<u8>),
    /// `grpc-status: 0`.
    GrpcOk,
}

impl Sending {
    pub(super) const fn new(window: u32) -> Self {
        Self { window: window as i64, queued: false, waiting: Bytes::new(), end: None }
    }

    /// True if bytes wait for a window.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.end.is_some()
    }
}

impl Stream {
    /// Counts bytes of the body against the length that was announced; false: they do not agree.
    pub(super) const fn counts(&mut self, bytes: usize, end: bool) -> bool {
        let Some(announced) = self.announced else { return true };
        let Some(left) = announced.checked_sub(bytes as u64) else { return false };
        self.announced = Some(left);
        !end || left == 0
    }
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Closed {
    /// Both sides have ended it, or the peer has reset it.
    Ended,
    /// This side has reset it, so frames of the peer may be under way.
    Reset,
}

/// The streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The stream that was opened last. Most are closed before the next one opens.
    newest: Option<(u32, Stream)>,
    others: HashMap<u32, Stream>,
    /// The streams closed last, in a ring.
    closed: Vec<(u32, Closed)>,
    next_closed: usize,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.newest.is_some())
    }

    pub(super) fn open(&mut self, id: u32, stream: Stream) {
        if let Some((id, before)) = self.newest.replace((id, stream)) {
            self.others.insert(id, before);
        }
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        match &mut self.newest {
            Some((newest, stream)) if *newest == id => Some(stream),
            _ => self.others.get_mut(&id),
        }
    }

    /// Closes a stream; false: it was not open.
    pub(super) fn close(&mut self, id: u32, how: Closed) -> bool {
        let was_open = match &self.newest {
            Some((newest, _)) if *newest == id => self.newest.take().is_some(),
            _ => self.others.remove(&id).is_some(),
        };
        if was_open {
            self.remember(id, how);
        }
        was_open
    }

    /// Notes a stream that was closed as soon as it was opened.
    pub(super) fn remember(&mut self, id: u32, how: Closed) {
        match self.closed.get_mut(self.next_closed) {
            Some(place) => *place = (id, how),
            None => self.closed.push((id, how)),
        }
        self.next_closed = (self.next_closed + 1) % REMEMBERED;
    }

    /// The end of a stream, if it is one of the last.
    pub(super) fn end_of(&self, id: u32) -> Option<Closed> {
        self.closed.iter().find(|(closed, _)| *closed == id).map(|(_, how)| *how)
    }

    pub(super) fn iter(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        let newest = self.newest.iter_mut().map(|(id, stream)| (*id, stream));
        newest.chain(self.others.iter_mut().map(|(id, stream)| (*id, stream)))
    }
}
