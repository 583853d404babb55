//! Frames: their headers, flags and error codes.
//!
//! Source: RFC 9113, sections 4.1, 6 and 7.

/// Length of a frame header in bytes.
pub const HEADER_BYTES: usize = 9;

/// The largest payload that every peer accepts, and the largest that this side accepts.
pub const MAX_PAYLOAD: usize = 1 << 14;

/// The largest window, and the largest stream id.
pub const MAX_31: u32 = (1 << 31) - 1;

/// The client preface. Source: RFC 9113, section 3.4.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames. Others are ignored.
#[expect(missing_docs, reason = "the names of the specification")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[expect(missing_docs, reason = "the names of the specification")]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Numbers of settings. Others are ignored.
#[expect(missing_docs, reason = "the names of the specification")]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// An error code, of `RST_STREAM` and GOAWAY.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorCode(pub u32);

#[expect(missing_docs, reason = "the names of the specification")]
impl ErrorCode {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    /// Bytes of the payload.
    pub length: usize,
    /// One of [`kind`], or any other.
    pub kind: u8,
    /// Those of [`flag`].
    pub flags: u8,
    /// 0: the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// A header with these parts. `length` has 24 bits.
    pub const fn new(length: usize, kind: u8, flags: u8, stream: u32) -> Self {
        Self { length, kind, flags, stream }
    }

    /// Reads the header at the beginning of `bytes`; `None` until all of it is there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & MAX_31,
        })
    }

    /// Appends the header to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        let [_, length @ ..] = (self.length as u32).to_be_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    /// True if `flag` is set.
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame whose payload is a big-endian number of 32 bits: `RST_STREAM`,
/// `WINDOW_UPDATE`.
pub fn write_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    FrameHeader::new(4, kind, 0, stream).write(out);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends GOAWAY: no stream above `last` is served.
pub fn write_goaway(out: &mut Vec<u8>, last: u32, code: ErrorCode) {
    FrameHeader::new(8, kind::GOAWAY, 0, 0).write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends a PING, or its acknowledgement.
pub fn write_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    FrameHeader::new(8, kind::PING, flags, 0).write(out);
    out.extend_from_slice(&payload);
}

/// Appends SETTINGS with these values.
pub fn write_settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    FrameHeader::new(values.len() * 6, kind::SETTINGS, 0, 0).write(out);
    for (number, value) in values {
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The settings in the payload of a SETTINGS frame: numbers and values.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks::<6>()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
}

/// Bytes of a priority.
pub const PRIORITY_BYTES: usize = 5;

/// The stream that a priority names.
pub(super) const fn depends_on(priority: [u8; PRIORITY_BYTES]) -> u32 {
    let [a, b, c, d, _] = priority;
    u32::from_be_bytes([a & 0x7f, b, c, d])
}

/// The payload without its padding; `None`: there is more padding than payload.
pub fn unpadded(header: FrameHeader, payload: &[u8]) -> Option<&[u8]> {
    if !header.has(flag::PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let mut out = Vec::new();
        let header = FrameHeader::new(0x01_0203, kind::HEADERS, flag::END_HEADERS, MAX_31);
        header.write(&mut out);
        assert_eq!(out, [1, 2, 3, 1, 4, 0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(FrameHeader::read(&out), Some(header));
        assert_eq!(FrameHeader::read(&out[..8]), None);
        out[5] |= 0x80;
        assert_eq!(FrameHeader::read(&out), Some(header), "the reserved bit is ignored");
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let values = [(setting::MAX_FRAME_SIZE, 16_384), (0xffff, u32::MAX)];
        let mut out = Vec::new();
        write_settings(&mut out, &values);
        assert_eq!(settings(&out[HEADER_BYTES..]).collect::<Vec<_>>(), values);
    }
}
