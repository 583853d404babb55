//! The server's side of a connection: bytes in, events out; answers in, bytes out.

use std::collections::VecDeque;

use http::request::Parts;

use super::event::{Event, Fault, Limits};
use super::frame::{
    ErrorCode, FrameHeader, HEADER_BYTES, MAX_31, MAX_PAYLOAD, flag, kind, setting, write_goaway,
    write_number, write_ping, write_settings,
};
use super::hpack;
use super::memo::{Block, Memo};
use super::streams::{Closed, Streams};

/// The windows of a peer before it says anything else. Source: RFC 9113, section 6.9.2.
const DEFAULT_WINDOW: u32 = 65_535;

/// The PING that finds out when a peer has seen the first GOAWAY.
const DRAIN: [u8; 8] = *b"draining";
/// The PING that finds out if a peer is there.
const ALIVE: [u8; 8] = *b"is alive";

/// The end of a connection that this side wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Going {
    Not,
    /// The peer was told, and may not know yet.
    Announced,
    /// No stream above this one is served.
    Last(u32),
}

/// One connection. `T` is what its owner makes of the head of a request.
#[derive(Debug)]
pub struct Connection<T> {
    pub(super) limits: Limits,
    /// Bytes that the peer takes on a new stream.
    pub(super) peer_window: u32,
    pub(super) streams: Streams,
    pub(super) decoder: hpack::Decoder,
    pub(super) memo: Memo<T>,
    /// A block of headers that is not whole.
    pub(super) block: Option<Block>,
    /// The largest stream of the peer.
    pub(super) last: u32,
    /// Bytes that the peer takes on all streams.
    pub(super) send_window: i64,
    /// Bytes that the peer may send on all streams.
    pub(super) receive_window: u32,
    /// Those that were read since the last update of that window.
    pub(super) released: u32,
    /// Streams that wait for the window of the connection.
    pub(super) queue: VecDeque<u32>,
    /// The peer has sent its settings.
    pub(super) greeted: bool,
    /// The peer has set the size of its table, and was not told that it stays empty.
    pub(super) table_changed: bool,
    going: Going,
    /// The peer opens no more streams.
    peer_goes: bool,
    pub(super) turn: u64,
    pub(super) resets_in_turn: usize,
    pub(super) faults: usize,
    /// The bytes to be sent.
    pub(super) out: Vec<u8>,
}

impl<T: From<Parts>> Connection<T> {
    /// A connection whose peer has sent the [preface](super::frame::PREFACE).
    pub fn new(limits: Limits) -> Self {
        let mut out = Vec::new();
        write_settings(
            &mut out,
            &[
                (setting::MAX_CONCURRENT_STREAMS, limits.streams),
                (setting::INITIAL_WINDOW_SIZE, limits.stream_window),
                (setting::MAX_HEADER_LIST_SIZE, limits.header_bytes),
            ],
        );
        let more = limits.connection_window.saturating_sub(DEFAULT_WINDOW);
        write_number(&mut out, kind::WINDOW_UPDATE, 0, more);
        Self {
            limits,
            peer_window: DEFAULT_WINDOW,
            streams: Streams::default(),
            decoder: hpack::Decoder::default(),
            memo: Memo::default(),
            block: None,
            last: 0,
            send_window: DEFAULT_WINDOW.into(),
            receive_window: limits.connection_window,
            released: 0,
            queue: VecDeque::new(),
            greeted: false,
            table_changed: false,
            going: Going::Not,
            peer_goes: false,
            turn: 0,
            resets_in_turn: 0,
            faults: 0,
            out,
        }
    }

    /// Begins a turn: all that was read from the peer at once.
    pub fn begin_turn(&mut self) {
        self.turn += 1;
        self.resets_in_turn = 0;
    }

    /// Takes the next event off `input`, of which it skips what it has read; `None`: the rest is a
    /// part of a frame, and has to be there again with more behind it.
    ///
    /// # Errors
    /// Fails if the peer breaks the protocol. Then the connection is to be closed once the output
    /// is sent.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a, T>>, Fault> {
        let next = self.read(input);
        if let Err(fault) = next {
            write_goaway(&mut self.out, self.last, fault.code);
        }
        next
    }

    fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a, T>>, Fault> {
        while let Some(header) = FrameHeader::read(input) {
            if header.length > MAX_PAYLOAD {
                let reason = "a frame is larger than SETTINGS_MAX_FRAME_SIZE";
                return Err(Fault::new(ErrorCode::FRAME_SIZE_ERROR, reason));
            }
            let whole = input.split_at_checked(HEADER_BYTES + header.length);
            let Some((frame, rest)) = whole else { break };
            *input = rest;
            let payload = frame.get(HEADER_BYTES..).unwrap_or_default();
            if let Some(event) = self.frame(header, payload, input)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// `rest`: the bytes after the frame, of which it may take the next one.
    fn frame<'a>(
        &mut self,
        header: FrameHeader,
        payload: &'a [u8],
        rest: &mut &'a [u8],
    ) -> Result<Option<Event<'a, T>>, Fault> {
        let of_block =
            |block: &Block| header.kind == kind::CONTINUATION && block.id == header.stream;
        if self.block.as_ref().is_some_and(|block| !of_block(block)) {
            return Err(Fault::protocol("a block of headers is interrupted"));
        }
        if !self.greeted && header.kind != kind::SETTINGS {
            return Err(Fault::protocol("the first frame is not SETTINGS"));
        }
        match header.kind {
            kind::DATA => self.data(header, payload),
            kind::HEADERS => self.headers(header, payload, rest),
            kind::CONTINUATION => self.continuation(header, payload, rest),
            kind::RST_STREAM => self.rst_stream(header, payload),
            kind::PRIORITY => self.priority(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            kind::SETTINGS => self.settings(header, payload).map(|()| None),
            kind::PING => self.ping(header, payload).map(|()| None),
            kind::GOAWAY => self.goaway(header, payload).map(|()| None),
            kind::PUSH_PROMISE => Err(Fault::protocol("a client cannot push")),
            _ => Ok(None),
        }
    }

    /// Counts a fault of the peer on one stream, which costs it the stream.
    pub(super) fn stream_fault(
        &mut self,
        id: u32,
        code: ErrorCode,
    ) -> Result<Option<Event<'static, T>>, Fault> {
        self.faults += 1;
        if self.faults > self.limits.faults {
            let reason = "too many faults on streams";
            return Err(Fault::new(ErrorCode::ENHANCE_YOUR_CALM, reason));
        }
        write_number(&mut self.out, kind::RST_STREAM, id, code.0);
        let was_open = self.streams.close(id, Closed::Reset);
        if !was_open {
            self.streams.remember(id, Closed::Reset);
        }
        Ok(was_open.then_some(Event::Reset { stream: id }))
    }

    /// The peer opens no more streams.
    fn goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(Fault::protocol("a GOAWAY on a stream"));
        }
        if payload.len() < 8 {
            return Err(Fault::new(ErrorCode::FRAME_SIZE_ERROR, "a GOAWAY below 8 bytes"));
        }
        self.peer_goes = true;
        Ok(())
    }

    fn ping(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(Fault::protocol("a PING on a stream"));
        }
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(Fault::new(ErrorCode::FRAME_SIZE_ERROR, "a PING that has not 8 bytes"));
        };
        if !header.has(flag::ACK) {
            write_ping(&mut self.out, flag::ACK, payload);
        } else if payload == DRAIN && self.going == Going::Announced {
            self.going = Going::Last(self.last);
            write_goaway(&mut self.out, self.last, ErrorCode::NO_ERROR);
        }
        Ok(())
    }
}

impl<T> Connection<T> {
    /// The bytes to be sent. Who sends them takes them out.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Tells the peer to open no more streams, and serves those that it opens before it knows.
    pub fn go_away(&mut self) {
        if self.going == Going::Not {
            self.going = Going::Announced;
            write_goaway(&mut self.out, MAX_31, ErrorCode::NO_ERROR);
            write_ping(&mut self.out, 0, DRAIN);
        }
    }

    /// True once no more streams come, and all are closed.
    pub fn is_done(&self) -> bool {
        (self.peer_goes || matches!(self.going, Going::Last(_))) && self.streams.len() == 0
    }

    /// True if a stream was never opened. Those of even ids are the server's, which opens none.
    pub(super) const fn is_idle(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    /// True if a new stream is not served any more.
    pub(super) const fn is_beyond(&self, id: u32) -> bool {
        matches!(self.going, Going::Last(last) if id > last)
    }

    /// Asks the peer for a sign of life.
    pub fn ping_peer(&mut self) {
        write_ping(&mut self.out, 0, ALIVE);
    }

    /// True if a stream is open.
    pub fn is_open(&mut self, id: u32) -> bool {
        self.streams.get(id).is_some()
    }

    /// The number of open streams.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }
}
