//! Bodies, windows and settings: the frames that change how much may be sent.
//!
//! Source: RFC 9113, sections 5.2, 6.1, 6.3 to 6.5 and 6.9.

use http::request::Parts;

use super::connection::Connection;
use super::event::{Event, Fault, TOO_MUCH_PADDING};
use super::frame::{
    self, ErrorCode, FrameHeader, MAX_31, MAX_PAYLOAD, depends_on, flag, kind, setting, unpadded,
    write_number,
};
use super::streams::Closed;

/// A payload of 32 bits, of which the first is not used.
fn number(payload: &[u8], reason: &'static str) -> Result<u32, Fault> {
    let bytes = payload.try_into().map(u32::from_be_bytes);
    bytes.map_err(|_| Fault::new(ErrorCode::FRAME_SIZE_ERROR, reason))
}

impl<T: From<Parts>> Connection<T> {
    pub(super) fn data<'a>(
        &mut self,
        header: FrameHeader,
        payload: &'a [u8],
    ) -> Result<Option<Event<'a, T>>, Fault> {
        let (id, size) = (header.stream, header.length as u32);
        if self.is_idle(id) {
            return Err(Fault::protocol("DATA on a stream that was never opened"));
        }
        let Some(left) = self.receive_window.checked_sub(size) else {
            let reason = "DATA beyond the window of the connection";
            return Err(Fault::new(ErrorCode::FLOW_CONTROL_ERROR, reason));
        };
        self.receive_window = left;
        let bytes = unpadded(header, payload).ok_or(TOO_MUCH_PADDING)?;
        let end = header.has(flag::END_STREAM);
        let Some(stream) = self.streams.get(id) else {
            self.release_connection(size);
            return match self.streams.end_of(id) {
                Some(Closed::Reset) => Ok(None),
                _ if self.is_beyond(id) => Ok(None),
                _ => self.stream_fault(id, ErrorCode::STREAM_CLOSED),
            };
        };
        let fault = if !stream.receiving {
            Some(ErrorCode::STREAM_CLOSED)
        } else if size > stream.receive_window {
            Some(ErrorCode::FLOW_CONTROL_ERROR)
        } else {
            stream.receive_window -= size;
            stream.receiving = !end;
            (!stream.counts(bytes.len(), end)).then_some(ErrorCode::PROTOCOL_ERROR)
        };
        if let Some(code) = fault {
            self.release_connection(size);
            return self.stream_fault(id, code);
        }
        self.release(id, header.length - bytes.len());
        if bytes.is_empty() && !end {
            return Ok(None);
        }
        Ok(Some(Event::Data { stream: id, bytes, end }))
    }

    pub(super) fn rst_stream(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event<'static, T>>, Fault> {
        number(payload, "a RST_STREAM that has not 4 bytes")?;
        let id = header.stream;
        if self.is_idle(id) {
            return Err(Fault::protocol("RST_STREAM on a stream that was never opened"));
        }
        let unseen = self.streams.get(id).is_some_and(|stream| stream.turn == self.turn);
        self.resets_in_turn += usize::from(unseen);
        if self.resets_in_turn > self.limits.resets_in_a_turn {
            let reason = "streams are opened and reset at once";
            return Err(Fault::new(ErrorCode::ENHANCE_YOUR_CALM, reason));
        }
        // Told of a stream that is answered, too: its answer came too late.
        self.streams.close(id, Closed::Ended);
        Ok(Some(Event::Reset { stream: id }))
    }

    pub(super) fn priority(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event<'static, T>>, Fault> {
        if header.stream == 0 {
            return Err(Fault::protocol("a PRIORITY without a stream"));
        }
        let id = header.stream;
        let (code, reason) = match payload.try_into().map(depends_on) {
            Err(_) => (ErrorCode::FRAME_SIZE_ERROR, "a PRIORITY that has not 5 bytes"),
            Ok(other) if other != id => return Ok(None),
            // The peer is told once that the stream is reset.
            Ok(_) if self.streams.end_of(id) == Some(Closed::Reset) => return Ok(None),
            Ok(_) => (ErrorCode::PROTOCOL_ERROR, "a stream depends on itself"),
        };
        if id > self.last { Err(Fault::new(code, reason)) } else { self.stream_fault(id, code) }
    }

    pub(super) fn window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event<'static, T>>, Fault> {
        let id = header.stream;
        let more = number(payload, "a WINDOW_UPDATE that has not 4 bytes")? & MAX_31;
        if id > 0 && self.is_idle(id) {
            return Err(Fault::protocol("WINDOW_UPDATE on a stream that was never opened"));
        }
        if more == 0 {
            return Err(Fault::protocol("a WINDOW_UPDATE of 0"));
        }
        if id == 0 {
            self.send_window += i64::from(more);
            if self.send_window > MAX_31.into() {
                let reason = "the window of the connection is beyond 2^31 - 1";
                return Err(Fault::new(ErrorCode::FLOW_CONTROL_ERROR, reason));
            }
            self.advance_queue();
            return Ok(None);
        }
        let Some(stream) = self.streams.get(id) else { return Ok(None) };
        stream.sending.window += i64::from(more);
        if stream.sending.window > MAX_31.into() {
            return self.stream_fault(id, ErrorCode::FLOW_CONTROL_ERROR);
        }
        self.advance(id);
        Ok(None)
    }

    pub(super) fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fault> {
        let is_ack = header.has(flag::ACK);
        if header.stream != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if !payload.len().is_multiple_of(6) || (is_ack && !payload.is_empty()) {
            let reason = "SETTINGS of a size that they cannot have";
            return Err(Fault::new(ErrorCode::FRAME_SIZE_ERROR, reason));
        }
        if is_ack {
            return Ok(());
        }
        self.greeted = true;
        for (number, value) in frame::settings(payload) {
            self.set(number, value)?;
        }
        FrameHeader::new(0, kind::SETTINGS, flag::ACK, 0).write(&mut self.out);
        Ok(())
    }

    fn set(&mut self, number: u16, value: u32) -> Result<(), Fault> {
        match number {
            setting::ENABLE_PUSH if value > 1 => {
                Err(Fault::protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1"))
            }
            // Nothing is put into the table of the peer, but its size has to be agreed on.
            setting::HEADER_TABLE_SIZE => {
                self.table_changed = true;
                Ok(())
            }
            setting::INITIAL_WINDOW_SIZE => self.resize_windows(value),
            setting::MAX_FRAME_SIZE => {
                if !(MAX_PAYLOAD as u32..1 << 24).contains(&value) {
                    return Err(Fault::protocol("SETTINGS_MAX_FRAME_SIZE is out of its range"));
                }
                // Larger frames would only make others wait for longer.
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn resize_windows(&mut self, size: u32) -> Result<(), Fault> {
        let beyond = |reason| Fault::new(ErrorCode::FLOW_CONTROL_ERROR, reason);
        if size > MAX_31 {
            return Err(beyond("SETTINGS_INITIAL_WINDOW_SIZE is beyond 2^31 - 1"));
        }
        let more = i64::from(size) - i64::from(self.peer_window);
        self.peer_window = size;
        if more == 0 {
            return Ok(());
        }
        let mut waiting = Vec::new();
        for (id, stream) in self.streams.iter() {
            stream.sending.window += more;
            if stream.sending.window > MAX_31.into() {
                return Err(beyond("SETTINGS_INITIAL_WINDOW_SIZE makes a window too large"));
            }
            if more > 0 && stream.sending.is_waiting() {
                waiting.push(id);
            }
        }
        for id in waiting {
            self.advance(id);
        }
        Ok(())
    }
}

impl<T> Connection<T> {
    /// Lets the peer send so many bytes more, because as many of the stream's were read.
    pub fn release(&mut self, id: u32, bytes: usize) {
        let bytes = bytes as u32;
        self.release_connection(bytes);
        let half = self.limits.stream_window / 2;
        let Some(stream) = self.streams.get(id).filter(|stream| stream.receiving) else { return };
        stream.released += bytes;
        if stream.released >= half {
            stream.receive_window += stream.released;
            write_number(&mut self.out, kind::WINDOW_UPDATE, id, stream.released);
            stream.released = 0;
        }
    }

    fn release_connection(&mut self, bytes: u32) {
        self.released += bytes;
        if self.released >= self.limits.connection_window / 2 {
            self.receive_window += self.released;
            write_number(&mut self.out, kind::WINDOW_UPDATE, 0, self.released);
            self.released = 0;
        }
    }
}
