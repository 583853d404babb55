//! Blocks of headers, in one frame or several: they begin a request, or end it.

use std::sync::Arc;

use http::request::Parts;

use super::connection::Connection;
use super::event::{Event, Fault, TOO_MUCH_PADDING};
use super::frame::{
    ErrorCode, FrameHeader, HEADER_BYTES, MAX_PAYLOAD, PRIORITY_BYTES, depends_on, flag, kind,
    unpadded,
};
use super::head::{Fault as HeadFault, Fields};
use super::hpack;
use super::memo::{Block, MEMO_BYTES};
use super::send::write_headers;
use super::streams::{Closed, Sending, Stream};

/// The bytes that the frames of a block have at least, on average.
const LEAST_OF_FRAME: usize = 1 << 10;

impl<T: From<Parts>> Connection<T> {
    pub(super) fn headers<'a>(
        &mut self,
        header: FrameHeader,
        payload: &'a [u8],
        rest: &mut &'a [u8],
    ) -> Result<Option<Event<'a, T>>, Fault> {
        let id = header.stream;
        if id.is_multiple_of(2) {
            return Err(Fault::protocol("HEADERS on a stream that is not the client's"));
        }
        let mut block = unpadded(header, payload).ok_or(TOO_MUCH_PADDING)?;
        if header.has(flag::PRIORITY) {
            let Some((priority, fields)) = block.split_first_chunk::<PRIORITY_BYTES>() else {
                let reason = "HEADERS end within their priority";
                return Err(Fault::new(ErrorCode::FRAME_SIZE_ERROR, reason));
            };
            if depends_on(*priority) == id {
                return Err(Fault::protocol("a stream depends on itself"));
            }
            block = fields;
        }
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.whole_block(id, block, end_stream, rest);
        }
        self.block = Some(Block { id, bytes: block.to_vec(), end_stream, frames: 1 });
        Ok(None)
    }

    pub(super) fn continuation<'a>(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        rest: &mut &'a [u8],
    ) -> Result<Option<Event<'a, T>>, Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(Fault::protocol("a CONTINUATION that continues nothing"));
        };
        block.frames += 1;
        // A block is hardly larger than its fields, so this one is beyond the bound.
        let most = self.limits.header_bytes as usize + MAX_PAYLOAD;
        let is_beyond = block.bytes.len() + payload.len() > most;
        if is_beyond || block.frames > most / LEAST_OF_FRAME {
            let reason = "a block of headers without an end";
            return Err(Fault::new(ErrorCode::ENHANCE_YOUR_CALM, reason));
        }
        block.bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS) {
            return self.whole_block(block.id, &block.bytes, block.end_stream, rest);
        }
        self.block = Some(block);
        Ok(None)
    }

    fn whole_block<'a>(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
        rest: &mut &'a [u8],
    ) -> Result<Option<Event<'a, T>>, Fault> {
        if id <= self.last {
            return self.trailers(id, block, end_stream);
        }
        self.last = id;
        if self.is_beyond(id) {
            self.decode(block, 0)?;
            return Ok(None);
        }
        if self.streams.len() >= self.limits.streams as usize {
            self.decode(block, 0)?;
            return self.stream_fault(id, ErrorCode::REFUSED_STREAM);
        }
        let version = self.decoder.version();
        if let Some(head) = self.memo.get(block, version) {
            let head = Arc::clone(head);
            self.open(id, end_stream, None);
            return Ok(Some(self.request(id, head, end_stream, rest)));
        }
        let fields = self.decode(block, self.limits.header_bytes as usize)?;
        let head = match fields.head() {
            Ok(head) => head,
            Err(HeadFault::TooLarge) => return self.refuse_headers(id),
            Err(HeadFault::Malformed) => {
                return self.stream_fault(id, ErrorCode::PROTOCOL_ERROR);
            }
        };
        if end_stream && head.content_length.is_some_and(|length| length > 0) {
            return self.stream_fault(id, ErrorCode::PROTOCOL_ERROR);
        }
        let announced = head.content_length;
        let head = Arc::new(T::from(head.parts));
        let repeats = self.decoder.version() == version && announced.is_none();
        if repeats && block.len() <= MEMO_BYTES {
            self.memo.keep(block, &head, version);
        }
        self.open(id, end_stream, announced);
        Ok(Some(self.request(id, head, end_stream, rest)))
    }

    fn decode(&mut self, block: &[u8], max: usize) -> Result<Fields, Fault> {
        let mut fields = Fields::new(max);
        let decoded = self.decoder.decode(block, |name, value| fields.add(name, value));
        decoded.map_err(|hpack::Invalid| {
            Fault::new(ErrorCode::COMPRESSION_ERROR, "a block of headers that is not HPACK")
        })?;
        if max > 0 && fields.are_excessive() {
            let reason = "excessive load: headers far beyond SETTINGS_MAX_HEADER_LIST_SIZE";
            return Err(Fault::new(ErrorCode::ENHANCE_YOUR_CALM, reason));
        }
        Ok(fields)
    }

    fn open(&mut self, id: u32, end_stream: bool, announced: Option<u64>) {
        let stream = Stream {
            turn: self.turn,
            receiving: !end_stream,
            receive_window: self.limits.stream_window,
            released: 0,
            announced,
            sending: Sending::new(self.peer_window),
        };
        self.streams.open(id, stream);
    }

    /// A request with its body, if that is in the next frame: so it is for most calls.
    fn request<'a>(
        &mut self,
        stream: u32,
        head: Arc<T>,
        end_stream: bool,
        rest: &mut &'a [u8],
    ) -> Event<'a, T> {
        if end_stream {
            return Event::Request { stream, head, body: Some(&[]) };
        }
        let body = whole_body(stream, rest).filter(|body| self.takes_whole(stream, body.len()));
        if let Some(body) = body {
            *rest = rest.get(HEADER_BYTES + body.len()..).unwrap_or_default();
            self.release(stream, body.len());
        }
        Event::Request { stream, head, body }
    }

    /// Takes a whole body in, if the windows and the head allow it.
    fn takes_whole(&mut self, id: u32, length: usize) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        let window = self.receive_window.min(stream.receive_window);
        if stream.announced.is_some() || length > window as usize {
            return false;
        }
        stream.receiving = false;
        self.receive_window -= length as u32;
        true
    }

    /// Headers of a stream that is known: trailers of its request, or a fault.
    fn trailers(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
    ) -> Result<Option<Event<'static, T>>, Fault> {
        let trailers = self.decode(block, self.limits.header_bytes as usize)?;
        let Some(stream) = self.streams.get(id) else {
            return match self.streams.end_of(id) {
                Some(Closed::Reset) => Ok(None),
                Some(Closed::Ended) => {
                    let reason = "HEADERS on a closed stream";
                    Err(Fault::new(ErrorCode::STREAM_CLOSED, reason))
                }
                None => Err(Fault::protocol("the id of a stream is below an earlier one")),
            };
        };
        if end_stream && !stream.receiving {
            return self.stream_fault(id, ErrorCode::STREAM_CLOSED);
        }
        let is_whole = stream.announced.is_none_or(|left| left == 0);
        if !end_stream || !trailers.are_trailers() || !is_whole {
            return self.stream_fault(id, ErrorCode::PROTOCOL_ERROR);
        }
        stream.receiving = false;
        Ok(Some(Event::Data { stream: id, bytes: &[], end: true }))
    }

    /// Answers a request whose headers are beyond the bound.
    fn refuse_headers(&mut self, id: u32) -> Result<Option<Event<'static, T>>, Fault> {
        let mut block = Vec::new();
        hpack::write_status(&mut block, 431);
        write_headers(&mut self.out, &mut self.table_changed, (id, &block), true);
        self.stream_fault(id, ErrorCode::NO_ERROR)
    }
}

/// The body in the next frame, if that is all of it.
fn whole_body<'a>(id: u32, rest: &&'a [u8]) -> Option<&'a [u8]> {
    let header = FrameHeader::read(rest)?;
    let is_whole = header.kind == kind::DATA
        && header.stream == id
        && header.flags & (flag::END_STREAM | flag::PADDED) == flag::END_STREAM
        && header.length <= MAX_PAYLOAD;
    if !is_whole {
        return None;
    }
    rest.get(HEADER_BYTES..HEADER_BYTES + header.length)
}
