//! Answers: frames within the windows of the peer.
//!
//! A gRPC answer that fits, as nearly all do, becomes bytes in one go. What does not fit waits in
//! its stream for a `WINDOW_UPDATE`.
//!
//! Source: RFC 9113, sections 5.2, 6.1 and 6.9.

use std::mem;

use bytes::{Buf as _, Bytes};

use super::connection::Connection;
use super::frame::{ErrorCode, FrameHeader, HEADER_BYTES, MAX_PAYLOAD, flag, kind, write_number};
use super::hpack;
use super::streams::{Closed, End};

/// `:status: 200` and `content-type: application/grpc`, as HPACK that no table keeps.
const GRPC_HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
const GRPC_OK: &[u8] = b"\x00\x0bgrpc-status\x010";

impl<T> Connection<T> {
    /// Answers with a gRPC message, which has its prefix, and the status OK. False: the stream is
    /// not open any more.
    pub fn send_grpc(&mut self, id: u32, message: &Bytes) -> bool {
        let connection = self.send_window;
        let Some(stream) = self.streams.get(id) else { return false };
        let length = message.len().cast_signed() as i64;
        let most = connection.min(stream.sending.window).min(MAX_PAYLOAD.cast_signed() as i64);
        if length > most || self.table_changed {
            write_headers(&mut self.out, &mut self.table_changed, (id, GRPC_HEAD), false);
            self.send_data(id, message.clone(), Some(End::GrpcOk));
            return true;
        }
        self.send_window -= length;
        let out = &mut self.out;
        out.reserve(3 * HEADER_BYTES + GRPC_HEAD.len() + message.len() + GRPC_OK.len());
        FrameHeader::new(GRPC_HEAD.len(), kind::HEADERS, flag::END_HEADERS, id).write(out);
        out.extend_from_slice(GRPC_HEAD);
        FrameHeader::new(message.len(), kind::DATA, 0, id).write(out);
        out.extend_from_slice(message);
        let end = flag::END_HEADERS | flag::END_STREAM;
        FrameHeader::new(GRPC_OK.len(), kind::HEADERS, end, id).write(out);
        out.extend_from_slice(GRPC_OK);
        self.ended(id);
        true
    }

    /// Begins an answer with `block`, the headers; `end`: it is the whole answer.
    pub fn send_head(&mut self, id: u32, block: &[u8], end: bool) {
        if self.streams.get(id).is_none() {
            return;
        }
        write_headers(&mut self.out, &mut self.table_changed, (id, block), end);
        if end {
            self.ended(id);
        }
    }

    /// Goes on with an answer. Bytes that were sent before must not wait any more, see
    /// [`Self::takes_data`].
    pub fn send_data(&mut self, id: u32, bytes: Bytes, end: Option<End>) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.sending.waiting = bytes;
        stream.sending.end = end;
        self.advance(id);
    }

    /// True if nothing of the stream waits for a window.
    pub fn takes_data(&mut self, id: u32) -> bool {
        self.streams.get(id).is_some_and(|stream| !stream.sending.is_waiting())
    }

    /// Resets a stream of the peer that is open.
    pub fn reset(&mut self, id: u32, code: ErrorCode) {
        if self.streams.close(id, Closed::Reset) {
            write_number(&mut self.out, kind::RST_STREAM, id, code.0);
        }
    }

    /// Sends what waits and fits.
    pub(super) fn advance(&mut self, id: u32) {
        let Self { streams, out, send_window, queue, table_changed, .. } = self;
        let Some(stream) = streams.get(id) else { return };
        let sending = &mut stream.sending;
        while !sending.waiting.is_empty() {
            let room = (*send_window).min(sending.window).min(MAX_PAYLOAD.cast_signed() as i64);
            let length = sending.waiting.len().min(usize::try_from(room).unwrap_or(0));
            if length == 0 {
                // With a window of its own it waits for that of the connection.
                if sending.window > 0 && !sending.queued {
                    sending.queued = true;
                    queue.push_back(id);
                }
                return;
            }
            let is_last = length == sending.waiting.len() && matches!(sending.end, Some(End::Bare));
            let flags = if is_last { flag::END_STREAM } else { 0 };
            FrameHeader::new(length, kind::DATA, flags, id).write(out);
            out.extend_from_slice(sending.waiting.get(..length).unwrap_or_default());
            sending.waiting.advance(length);
            sending.window -= length.cast_signed() as i64;
            *send_window -= length.cast_signed() as i64;
            if is_last {
                return self.ended(id);
            }
        }
        sending.waiting = Bytes::new();
        match sending.end.take() {
            None => return,
            Some(End::Bare) => FrameHeader::new(0, kind::DATA, flag::END_STREAM, id).write(out),
            Some(End::Trailers(block)) => write_headers(out, table_changed, (id, &block), true),
            Some(End::GrpcOk) => write_headers(out, table_changed, (id, GRPC_OK), true),
        }
        self.ended(id);
    }

    /// Sends what waits for the window of the connection, in turn.
    pub(super) fn advance_queue(&mut self) {
        while self.send_window > 0
            && let Some(id) = self.queue.pop_front()
        {
            if let Some(stream) = self.streams.get(id) {
                stream.sending.queued = false;
                self.advance(id);
            }
        }
    }

    /// This side of the stream has ended. A peer that still sends is told that nobody reads it.
    fn ended(&mut self, id: u32) {
        match self.streams.get(id) {
            Some(stream) if stream.receiving => self.reset(id, ErrorCode::NO_ERROR),
            _ => _ = self.streams.close(id, Closed::Ended),
        }
    }
}

/// Writes a block of headers, in frames that every peer takes. The first one after a change of the
/// peer's table says that it stays empty. Source: RFC 7541, section 4.2.
pub(super) fn write_headers(
    out: &mut Vec<u8>,
    table_changed: &mut bool,
    (id, block): (u32, &[u8]),
    end_stream: bool,
) {
    let resized = mem::take(table_changed).then(|| [hpack::NO_TABLE, block].concat());
    let mut rest = resized.as_deref().unwrap_or(block);
    let mut kind_of_frame = kind::HEADERS;
    loop {
        let (part, left) = rest.split_at_checked(MAX_PAYLOAD).unwrap_or((rest, &[]));
        let mut flags = if left.is_empty() { flag::END_HEADERS } else { 0 };
        if end_stream && kind_of_frame == kind::HEADERS {
            flags |= flag::END_STREAM;
        }
        FrameHeader::new(part.len(), kind_of_frame, flags, id).write(out);
        out.extend_from_slice(part);
        if left.is_empty() {
            return;
        }
        (rest, kind_of_frame) = (left, kind::CONTINUATION);
    }
}
