//! The frames of a peer, one by one.

use tollgate::http2::frame::{
    self, FrameHeader, MAX_31, MAX_PAYLOAD, PRIORITY_BYTES, flag, kind, setting, unpadded,
};

use super::{End, NO_SETTINGS, SHORT, Session};
use crate::load::client::Fault;
use crate::load::client::heads::Head;

impl<T> Session<T> {
    pub(super) fn frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        ended: &mut impl FnMut(T, End<'_>),
    ) -> Result<(), Fault> {
        if !self.is_ready && header.kind != kind::SETTINGS {
            return Err(Fault::Protocol(NO_SETTINGS));
        }
        if self.block.is_some() && header.kind != kind::CONTINUATION {
            return Err(Fault::Protocol("a header block is interrupted"));
        }
        match header.kind {
            kind::DATA => self.data(header, payload, ended),
            kind::HEADERS => self.headers(header, payload, ended),
            kind::CONTINUATION => self.continuation(header, payload, ended),
            kind::RST_STREAM => {
                let fault = Fault::Reset(number(payload)?);
                self.end(header.stream, End::Failed(fault), ended);
                Ok(())
            }
            kind::SETTINGS => self.settings(header, payload),
            kind::PUSH_PROMISE => Err(Fault::Protocol("a push, which the client does not allow")),
            kind::PING if !header.has(flag::ACK) => {
                let payload = payload.first_chunk().ok_or(SHORT)?;
                frame::write_ping(&mut self.out, flag::ACK, *payload);
                Ok(())
            }
            kind::GOAWAY => self.go_away(payload, ended),
            kind::WINDOW_UPDATE => self.window_update(header.stream, number(payload)?),
            _ => Ok(()),
        }
    }

    fn data(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        ended: &mut impl FnMut(T, End<'_>),
    ) -> Result<(), Fault> {
        self.received += payload.len() as u32;
        if self.received > MAX_31 / 2 {
            frame::write_number(&mut self.out, kind::WINDOW_UPDATE, 0, self.received);
            self.received = 0;
        }
        if let Some(call) = self.calls.get(header.stream) {
            call.answer.extend_from_slice(unpadded(header, payload).ok_or(SHORT)?);
            if header.has(flag::END_STREAM) {
                self.end(header.stream, End::Failed(Fault::Answer("it has no status")), ended);
            }
        }
        Ok(())
    }

    fn headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        ended: &mut impl FnMut(T, End<'_>),
    ) -> Result<(), Fault> {
        let mut block = unpadded(header, payload).ok_or(SHORT)?;
        if header.has(flag::PRIORITY) {
            block = block.get(PRIORITY_BYTES..).ok_or(Fault::Protocol("HEADERS are too short"))?;
        }
        if !header.has(flag::END_HEADERS) {
            self.block = Some((header, block.to_vec()));
            return Ok(());
        }
        self.head(header, block, ended)
    }

    fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        ended: &mut impl FnMut(T, End<'_>),
    ) -> Result<(), Fault> {
        let Some((first, mut block)) =
            self.block.take().filter(|(first, _)| first.stream == header.stream)
        else {
            return Err(Fault::Protocol("a CONTINUATION without HEADERS"));
        };
        block.extend_from_slice(payload);
        if block.len() > MAX_PAYLOAD {
            return Err(Fault::Protocol("the headers of an answer are too large"));
        }
        if !header.has(flag::END_HEADERS) {
            self.block = Some((first, block));
            return Ok(());
        }
        self.head(first, &block, ended)
    }

    fn head(
        &mut self,
        header: FrameHeader,
        block: &[u8],
        ended: &mut impl FnMut(T, End<'_>),
    ) -> Result<(), Fault> {
        let (head, stream) = (self.heads.read(block)?, header.stream);
        if header.has(flag::END_STREAM) {
            let end = match head {
                Head { http: Some(http), .. } if http != 200 => End::Failed(Fault::Http(http)),
                Head { grpc: Some(0), .. } => End::Answered(&[]),
                Head { grpc: Some(status), .. } => End::Failed(Fault::Grpc(status)),
                Head { grpc: None, .. } => End::Failed(Fault::Answer("it has no status")),
            };
            self.end(stream, end, ended);
        } else if let Some(http) = head.http.filter(|http| *http >= 300) {
            self.end(stream, End::Failed(Fault::Http(http)), ended);
        }
        Ok(())
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        self.is_ready = true;
        if header.has(flag::ACK) {
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Fault::Protocol("SETTINGS of a wrong length"));
        }
        for (setting, value) in frame::settings(payload) {
            match setting {
                setting::HEADER_TABLE_SIZE => self.requests.limit_table(value),
                setting::MAX_CONCURRENT_STREAMS => self.peer.calls = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let window = i64::from(value);
                    self.calls.widen(window - self.peer.stream_window);
                    self.peer.stream_window = window;
                }
                setting::MAX_FRAME_SIZE => self.peer.frame_bytes = value as usize,
                _ => {}
            }
        }
        FrameHeader::new(0, kind::SETTINGS, flag::ACK, 0).write(&mut self.out);
        self.unblock();
        Ok(())
    }

    fn window_update(&mut self, stream: u32, by: u32) -> Result<(), Fault> {
        let by = i64::from(by & MAX_31);
        if by == 0 {
            return Err(Fault::Protocol("a WINDOW_UPDATE of nothing"));
        }
        if stream == 0 {
            self.window += by;
        } else if let Some(call) = self.calls.get(stream) {
            call.window += by;
        }
        self.unblock();
        Ok(())
    }

    /// The peer takes no more calls; those above its last stream were not processed.
    fn go_away(&mut self, payload: &[u8], ended: &mut impl FnMut(T, End<'_>)) -> Result<(), Fault> {
        let (last, code) = payload.split_at_checked(4).ok_or(SHORT)?;
        let (last, code) = (number(last)? & MAX_31, number(code)?);
        self.is_leaving = true;
        if code != 0 {
            return Err(Fault::GoAway(code));
        }
        for stream in self.calls.streams().into_iter().filter(|stream| *stream > last) {
            self.end(stream, End::Unprocessed, ended);
        }
        Ok(())
    }
}

/// The four bytes at the beginning of a payload.
fn number(payload: &[u8]) -> Result<u32, Fault> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(SHORT)
}
