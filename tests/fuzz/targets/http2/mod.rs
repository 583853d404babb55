//! A connection of HTTP/2, against the `h2` crate: the same requests, resets and faults, however
//! the bytes are cut.
//!
//! Input: steps, each a byte that chooses a frame and bytes for its parts. See [`frames`].

mod frames;
mod oracle;
mod ours;

use std::collections::BTreeMap;

use tollgate::http2::frame::{ErrorCode, FrameHeader, HEADER_BYTES, flag, kind};

use super::chunks;

/// The concurrent streams of a connection: more than the frames. h2 still counts some that it has
/// reset.
const STREAMS: u32 = 64;
/// The bytes of a list of headers.
const HEADER_LIST_BYTES: u32 = 512;
/// The windows of a stream and of the connection.
const WINDOWS: (u32, u32) = (65_535, 100_000);

/// The code of a stream whose request is malformed.
const MALFORMED: u32 = ErrorCode::PROTOCOL_ERROR.0;

/// A side's account of a connection.
#[derive(Debug, Default, Eq, PartialEq)]
struct Seen {
    /// Requests by stream.
    requests: BTreeMap<u32, Request>,
    sent: Sent,
}

impl Seen {
    fn forget(&mut self, stream: u32) {
        self.requests.remove(&stream);
        self.sent.resets.remove(&stream);
    }
}

/// A request: its head as text, the bytes of its body, and its end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Request {
    head: String,
    body: Vec<u8>,
    ended: bool,
}

/// The frames that a server has sent.
#[derive(Debug, Default, Eq, PartialEq)]
struct Sent {
    /// Streams that it has reset, with the codes.
    resets: BTreeMap<u32, u32>,
    /// Acknowledged pings and settings.
    pings: Vec<Vec<u8>>,
    settings: usize,
    /// Heads of answers, by stream.
    answers: Vec<u32>,
    /// The code of the fault with which it has ended the connection.
    goaway: Option<u32>,
}

impl Sent {
    /// The connection has ended for a fault, or a stream for one that h2 takes for a fault of the
    /// connection: a frame after its end, or of a wrong size. Malformed trailers after the end are
    /// malformed to the `other` side.
    fn is_fault(&self, other: &Self) -> bool {
        let is_malformed = |stream| other.resets.get(stream) == Some(&MALFORMED);
        let mut resets = self.resets.iter().map(|(stream, code)| (stream, ErrorCode(*code)));
        self.goaway.is_some()
            || resets.any(|(stream, code)| match code {
                ErrorCode::STREAM_CLOSED => !is_malformed(stream),
                ErrorCode::FRAME_SIZE_ERROR => true,
                _ => false,
            })
    }

    fn parse(mut bytes: &[u8]) -> Self {
        let mut sent = Self::default();
        while let Some(header) = FrameHeader::read(bytes) {
            let (frame, rest) = bytes.split_at(HEADER_BYTES + header.length);
            let payload = &frame[HEADER_BYTES..];
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match header.kind {
                kind::RST_STREAM => _ = sent.resets.insert(header.stream, code(0)),
                kind::PING if header.has(flag::ACK) => sent.pings.push(payload.to_vec()),
                kind::SETTINGS if header.has(flag::ACK) => sent.settings += 1,
                kind::GOAWAY => sent.goaway = Some(code(4)).filter(|code| *code != 0),
                kind::HEADERS => sent.answers.push(header.stream),
                _ => {}
            }
            bytes = rest;
        }
        sent
    }
}

/// Both sides tell the same of a connection.
pub fn run(data: &[u8]) {
    let [seed, steps @ ..] = data else { return };
    let sound = seed & 1 == 0;
    let (bytes, given_up) = frames::of(steps, sound);
    let mut one = ours::serve([bytes.clone().into()]);
    for chunks in chunks::ways(&bytes, *seed) {
        let cut = ours::serve(chunks);
        assert_eq!(cut, one, "cut: {}", bytes.escape_ascii());
    }
    let mut other = oracle::serve(&bytes);
    let faults = (one.sent.is_fault(&other.sent), other.sent.is_fault(&one.sent));
    // A name that is none costs a stream here, as RFC 9113, section 8.1.1, has it, unless that is
    // lost for another reason.
    let by_name = !sound && !one.sent.resets.is_empty();
    // h2 counts no malformed field against the bound on the fields.
    let by_size = !sound
        && one.sent.goaway == Some(ErrorCode::ENHANCE_YOUR_CALM.0)
        && other.sent.resets.values().any(|code| *code == MALFORMED);
    // It depends on the time how far a call gets that its client gives up.
    for stream in given_up {
        one.forget(stream);
        other.forget(stream);
    }
    other.requests.retain(|stream, _| !one.sent.resets.contains_key(stream));
    let said = || format!("h2: {other:#?}\nours: {one:#?}\n{}", bytes.escape_ascii());
    let alike = faults.0 == faults.1;
    assert!(alike || (by_name && faults.1) || by_size, "{}", said());
    // Requests before a fault may be lost with the connection of h2, which also takes some that
    // break a rule: without a path, for one.
    if sound && !faults.0 {
        assert_eq!(one, other, "{}", said());
    }
}
