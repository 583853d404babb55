//! One connection of HTTP/2 as a state machine, RFC 9113: bytes in, bytes out.
//!
//! It serves calls of one message each way. The windows of the client are as wide as they may be,
//! because the answers of a load generator are read as they come; those of the peer are kept.

mod frames;

use std::collections::VecDeque;

use tollgate::http2::frame::{
    self, ErrorCode, FrameHeader, HEADER_BYTES, MAX_31, MAX_PAYLOAD, PREFACE, flag, kind, setting,
};

use super::Fault;
use super::calls::Calls;
use super::heads::Heads;
use super::requests::Requests;

/// Bytes of a flag and of the length before each message of gRPC.
const PREFIX_BYTES: usize = 5;
/// The window that both sides begin with.
const INITIAL_WINDOW: u32 = 65_535;

/// The end of a call.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum End<'a> {
    /// The message of the answer.
    Answered(&'a [u8]),
    /// The peer has not looked at it and closes the connection: it may be sent again.
    Unprocessed,
    Failed(Fault),
}

/// The bounds that the peer sets.
#[derive(Debug)]
struct Peer {
    calls: usize,
    stream_window: i64,
    frame_bytes: usize,
}

/// A session. `T` is what the caller keeps with a call.
#[derive(Debug)]
pub(crate) struct Session<T> {
    requests: Requests,
    /// Bytes to write.
    out: Vec<u8>,
    calls: Calls<T>,
    /// Calls at a time, for this side.
    most: usize,
    peer: Peer,
    /// Bytes that the peer allows on the connection.
    window: i64,
    /// Streams with a part of a message to send.
    blocked: VecDeque<u32>,
    heads: Heads,
    /// A header block that has not ended, and the header of its first frame.
    block: Option<(FrameHeader, Vec<u8>)>,
    /// Bytes of DATA since the last update of the window.
    received: u32,
    /// The peer's SETTINGS have come.
    is_ready: bool,
    is_leaving: bool,
}

impl<T> Session<T> {
    /// A session whose calls have the header blocks of `requests`, `most` at a time.
    pub(super) fn new(requests: Requests, most: usize) -> Self {
        let mut out = PREFACE.to_vec();
        let settings = [
            (setting::HEADER_TABLE_SIZE, 0),
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, MAX_31),
        ];
        frame::write_settings(&mut out, &settings);
        frame::write_number(&mut out, kind::WINDOW_UPDATE, 0, MAX_31 - INITIAL_WINDOW);
        Self {
            requests,
            out,
            calls: Calls::new(most),
            most,
            peer: Peer {
                calls: usize::MAX,
                stream_window: INITIAL_WINDOW.into(),
                frame_bytes: MAX_PAYLOAD,
            },
            window: INITIAL_WINDOW.into(),
            blocked: VecDeque::new(),
            heads: Heads::default(),
            block: None,
            received: 0,
            is_ready: false,
            is_leaving: false,
        }
    }

    /// The bytes to write. The caller removes those that it has written.
    pub(super) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Says if the peer has begun.
    pub(super) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Says if no call can begin now.
    pub(crate) fn is_full(&self) -> bool {
        self.calls.open() >= self.most.min(self.peer.calls)
            || self.is_leaving
            || !self.blocked.is_empty()
            || self.calls.are_at_end()
    }

    /// Says if no call can begin any more.
    pub(crate) fn is_over(&self) -> bool {
        (self.is_leaving || self.calls.are_at_end()) && self.calls.open() == 0
    }

    /// Begins a call, where [`Self::is_full`] does not say otherwise. `write` appends its message.
    pub(crate) fn call(&mut self, token: T, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { calls, out, requests, peer, window, .. } = self;
        let Some(call) = calls.open_next(token, peer.stream_window) else { return };
        let stream = call.stream;
        let request = requests.next();
        FrameHeader::new(request.len(), kind::HEADERS, flag::END_HEADERS, stream).write(out);
        out.extend_from_slice(request);
        let at = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES + PREFIX_BYTES]);
        write(out);
        let bytes = out.len() - at - HEADER_BYTES;
        // A message is far below 4 GB.
        let message = (bytes - PREFIX_BYTES) as u32;
        patch(out, at + HEADER_BYTES + 1, &message.to_be_bytes());
        if bytes <= peer.frame_bytes && bytes.cast_signed() as i64 <= call.window.min(*window) {
            let [_, length @ ..] = (bytes as u32).to_be_bytes();
            patch(out, at, &length);
            patch(out, at + 3, &[kind::DATA, flag::END_STREAM]);
            patch(out, at + 5, &stream.to_be_bytes());
            call.window -= bytes.cast_signed() as i64;
            *window -= bytes.cast_signed() as i64;
        } else {
            call.unsent.extend(out.drain(at + HEADER_BYTES..));
            out.truncate(at);
            self.send_rest(stream);
        }
    }

    /// Sends as much of the rest of a message as the windows allow.
    fn send_rest(&mut self, stream: u32) {
        let Self { calls, out, peer, window, blocked, .. } = self;
        let Some(call) = calls.get(stream) else { return };
        while !call.unsent.is_empty() {
            let allowed = usize::try_from(call.window.min(*window)).unwrap_or(0);
            let bytes = call.unsent.len().min(peer.frame_bytes).min(allowed);
            if bytes == 0 {
                return blocked.push_back(stream);
            }
            let flags = if bytes == call.unsent.len() { flag::END_STREAM } else { 0 };
            FrameHeader::new(bytes, kind::DATA, flags, stream).write(out);
            out.extend(call.unsent.drain(..bytes));
            call.window -= bytes.cast_signed() as i64;
            *window -= bytes.cast_signed() as i64;
        }
    }

    /// Takes the whole frames at the beginning of `input`: returns their bytes. Calls that end go
    /// to `ended`.
    ///
    /// # Errors
    /// Fails if the peer breaks the protocol or closes the connection for an error. Calls are open
    /// still.
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        ended: &mut impl FnMut(T, End<'_>),
    ) -> Result<usize, Fault> {
        let mut rest = input;
        while let Some(header) = FrameHeader::read(rest) {
            if header.length > MAX_PAYLOAD {
                return Err(Fault::Protocol(if self.is_ready {
                    "a frame is larger than 16384 bytes"
                } else {
                    NO_SETTINGS
                }));
            }
            let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + header.length) else { break };
            self.frame(header, payload, ended)?;
            rest = rest.get(HEADER_BYTES + header.length..).unwrap_or_default();
        }
        Ok(input.len() - rest.len())
    }

    /// Ends a call. An answer without a fault is that of the stream, and not of `end`.
    fn end(&mut self, stream: u32, end: End<'_>, ended: &mut impl FnMut(T, End<'_>)) {
        let Some((token, call)) = self.calls.close(stream) else { return };
        if !call.unsent.is_empty() {
            call.unsent.clear();
            self.blocked.retain(|blocked| *blocked != stream);
            frame::write_number(&mut self.out, kind::RST_STREAM, stream, ErrorCode::CANCEL.0);
        }
        match end {
            End::Answered(_) => match message(&call.answer) {
                Ok(message) => ended(token, End::Answered(message)),
                Err(fault) => ended(token, End::Failed(fault)),
            },
            other => ended(token, other),
        }
        call.answer.clear();
    }

    /// Sends what waits for windows.
    fn unblock(&mut self) {
        for _ in 0..self.blocked.len() {
            if let Some(stream) = self.blocked.pop_front() {
                self.send_rest(stream);
            }
        }
    }

    /// Ends all calls with `fault`: the connection is gone.
    pub(crate) fn fail(&mut self, fault: &Fault, ended: &mut impl FnMut(T, End<'_>)) {
        for stream in self.calls.streams() {
            self.end(stream, End::Failed(fault.clone()), ended);
        }
    }
}

const NO_SETTINGS: &str = "it does not begin with SETTINGS";
const SHORT: Fault = Fault::Protocol("a frame is too short");

/// The message of an answer, without its prefix.
fn message(answer: &[u8]) -> Result<&[u8], Fault> {
    let (prefix, message) = answer.split_first_chunk().ok_or(Fault::Answer("it has no message"))?;
    let [flag, l1, l2, l3, l4]: [u8; PREFIX_BYTES] = *prefix;
    if flag != 0 {
        return Err(Fault::Answer("it is compressed"));
    }
    if u32::from_be_bytes([l1, l2, l3, l4]) as usize != message.len() {
        return Err(Fault::Answer("it has another length than it says"));
    }
    Ok(message)
}

/// Overwrites what is at `at`.
fn patch(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
