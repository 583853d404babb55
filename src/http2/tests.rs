//! A connection by hand: answers within windows, floods, and the end. Which bytes of a client mean
//! what is held by the fuzz target, against another implementation.

use bytes::Bytes;
use http::request::Parts;

use super::frame::{
    ErrorCode, FrameHeader, HEADER_BYTES, MAX_31, flag, kind, setting, settings, write_number,
    write_settings,
};
use super::*;

const LIMITS: Limits = Limits {
    streams: 4,
    header_bytes: 256,
    stream_window: 65_535,
    connection_window: 100_000,
    resets_in_a_turn: 2,
    faults: 2,
};

/// A POST, without and with a header that is kept.
const BLOCK: &[u8] = b"\x83\x86\x84\x01\x01a";
const INDEXED: &[u8] = b"\x83\x86\x84\x40\x01x\x01y";

#[derive(Debug)]
struct Path(String);

impl From<Parts> for Path {
    fn from(parts: Parts) -> Self {
        Self(parts.uri.path().to_owned())
    }
}

struct Peer {
    connection: Connection<Path>,
    frames: Vec<u8>,
}

impl Peer {
    fn new(values: &[(u16, u32)]) -> Self {
        let mut frames = Vec::new();
        write_settings(&mut frames, values);
        let mut peer = Self { connection: Connection::new(LIMITS), frames };
        peer.turn().unwrap();
        peer.sent();
        peer
    }

    fn frame(&mut self, (kind, flags, stream): (u8, u8, u32), payload: &[u8]) -> &mut Self {
        FrameHeader::new(payload.len(), kind, flags, stream).write(&mut self.frames);
        self.frames.extend_from_slice(payload);
        self
    }

    fn call(&mut self, stream: u32) -> &mut Self {
        self.frame((kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream), BLOCK)
    }

    /// Handles all frames as one turn; the events as text.
    fn turn(&mut self) -> Result<Vec<String>, Fault> {
        let frames = std::mem::take(&mut self.frames);
        self.connection.begin_turn();
        let (mut input, mut events) = (&*frames, Vec::new());
        while let Some(event) = self.connection.next(&mut input)? {
            events.push(match event {
                Event::Request { stream, head, body } => format!("{stream} {} {body:?}", head.0),
                Event::Data { stream, bytes, end } => format!("{stream} {bytes:?} {end}"),
                Event::Reset { stream } => format!("{stream} reset"),
            });
        }
        assert!(input.is_empty());
        Ok(events)
    }

    /// The frames that were sent: kind, stream, and length or number.
    fn sent(&mut self) -> Vec<(u8, u32, usize)> {
        let out = std::mem::take(self.connection.output());
        let (mut rest, mut sent) = (&*out, Vec::new());
        while let Some(header) = FrameHeader::read(rest) {
            let (frame, left) = rest.split_at(HEADER_BYTES + header.length);
            let payload = &frame[HEADER_BYTES..];
            let figure = match header.kind {
                kind::RST_STREAM | kind::WINDOW_UPDATE => {
                    u32::from_be_bytes(payload.try_into().unwrap()) as usize
                }
                kind::GOAWAY => u32::from_be_bytes(payload[4..8].try_into().unwrap()) as usize,
                _ => header.length,
            };
            sent.push((header.kind, header.stream, figure));
            rest = left;
        }
        sent
    }

    fn sent_data(&mut self) -> Vec<(u32, usize)> {
        let data = |(kind, stream, length)| (kind == kind::DATA).then_some((stream, length));
        self.sent().into_iter().filter_map(data).collect()
    }

    fn window_update(&mut self, stream: u32, more: u32) {
        write_number(&mut self.frames, kind::WINDOW_UPDATE, stream, more);
        self.turn().unwrap();
    }
}

#[test]
fn first_frames_tell_the_bounds() {
    let mut connection = Connection::<Path>::new(LIMITS);
    let out = std::mem::take(connection.output());
    let header = FrameHeader::read(&out).unwrap();
    let payload = &out[HEADER_BYTES..HEADER_BYTES + header.length];
    let values: Vec<_> = settings(payload).collect();
    assert_eq!(
        values,
        [
            (setting::MAX_CONCURRENT_STREAMS, 4),
            (setting::INITIAL_WINDOW_SIZE, 65_535),
            (setting::MAX_HEADER_LIST_SIZE, 256),
        ]
    );
    let rest = &out[HEADER_BYTES + header.length..];
    assert_eq!(rest[HEADER_BYTES..], (100_000_u32 - 65_535).to_be_bytes());
}

#[test]
fn call_whose_message_follows_its_head_is_one_event() {
    let mut peer = Peer::new(&[]);
    let head = flag::END_HEADERS;
    peer.frame((kind::HEADERS, head, 1), BLOCK);
    peer.frame((kind::DATA, flag::END_STREAM, 1), b"hi");
    peer.frame((kind::HEADERS, head, 3), BLOCK);
    peer.frame((kind::DATA, 0, 3), b"h");
    peer.frame((kind::DATA, flag::END_STREAM, 3), b"i");
    let events = peer.turn().unwrap();
    assert_eq!(events, ["1 / Some([104, 105])", "3 / None", "3 [104] false", "3 [105] true"]);
    assert!(peer.connection.send_grpc(1, &Bytes::from_static(b"yes")));
    assert!(!peer.connection.send_grpc(1, &Bytes::from_static(b"yes")), "it is closed");
    let kinds: Vec<_> = peer.sent().iter().map(|(kind, stream, _)| (*kind, *stream)).collect();
    assert_eq!(kinds, [(kind::HEADERS, 1), (kind::DATA, 1), (kind::HEADERS, 1)]);
}

#[test]
fn block_that_comes_again_means_what_the_table_says() {
    let mut peer = Peer::new(&[]);
    let flags = flag::END_HEADERS | flag::END_STREAM;
    peer.frame((kind::HEADERS, flags, 1), b"\x83\x86\x44\x02/1");
    // The newest entry, by the same bytes.
    peer.frame((kind::HEADERS, flags, 3), b"\x83\x86\xbe");
    peer.frame((kind::HEADERS, flags, 5), b"\x83\x86\xbe");
    peer.frame((kind::HEADERS, flags, 7), b"\x83\x86\x44\x02/2");
    assert_eq!(peer.turn().unwrap().len(), 4);
    for stream in [1, 3, 5, 7] {
        peer.connection.reset(stream, ErrorCode::CANCEL);
    }
    peer.frame((kind::HEADERS, flags, 9), b"\x83\x86\xbe");
    assert_eq!(peer.turn().unwrap(), ["9 /2 Some([])"]);
}

#[test]
fn answers_wait_for_the_window_of_their_stream() {
    let mut peer = Peer::new(&[(setting::INITIAL_WINDOW_SIZE, 3)]);
    peer.call(1).turn().unwrap();
    assert!(peer.connection.send_grpc(1, &Bytes::from_static(b"1234567890")));
    assert_eq!(peer.sent_data(), [(1, 3)]);
    assert!(!peer.connection.takes_data(1));
    peer.window_update(1, 1);
    assert_eq!(peer.sent_data(), [(1, 1)]);
    // The window becomes negative, and is made good before more is sent.
    write_settings(&mut peer.frames, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    peer.turn().unwrap();
    peer.window_update(1, 3);
    assert_eq!(peer.sent_data(), []);
    write_settings(&mut peer.frames, &[(setting::INITIAL_WINDOW_SIZE, 4)]);
    peer.turn().unwrap();
    assert_eq!(peer.sent_data(), [(1, 4)]);
    peer.window_update(1, 100);
    let sent = peer.sent();
    assert_eq!(sent.iter().map(|sent| sent.0).collect::<Vec<_>>(), [kind::DATA, kind::HEADERS]);
    assert_eq!(peer.connection.open_streams(), 0);
}

#[test]
fn answers_share_the_window_of_the_connection_in_turn() {
    let mut peer = Peer::new(&[(setting::INITIAL_WINDOW_SIZE, MAX_31)]);
    peer.call(1).call(3).call(5).turn().unwrap();
    let long = Bytes::from(vec![0; 65_535]);
    assert!(peer.connection.send_grpc(1, &long));
    assert!(peer.connection.send_grpc(3, &Bytes::from_static(b"abc")));
    assert!(peer.connection.send_grpc(5, &Bytes::from_static(b"def")));
    assert_eq!(peer.sent_data().iter().map(|(_, length)| length).sum::<usize>(), 65_535);
    peer.window_update(0, 2);
    assert_eq!(peer.sent_data(), [(3, 2)]);
    peer.window_update(0, 100);
    assert_eq!(peer.sent_data(), [(5, 3), (3, 1)]);
    assert_eq!(peer.connection.open_streams(), 0);
}

#[test]
fn windows_of_the_peer_grow_as_its_bytes_are_read() {
    let mut peer = Peer::new(&[]);
    peer.frame((kind::HEADERS, flag::END_HEADERS, 1), BLOCK);
    for _ in 0..3 {
        peer.frame((kind::DATA, 0, 1), &[0; 16_000]);
    }
    peer.turn().unwrap();
    assert_eq!(peer.sent(), []);
    peer.connection.release(1, 32_000);
    assert_eq!(peer.sent(), []);
    peer.connection.release(1, 16_000);
    assert_eq!(peer.sent(), [(kind::WINDOW_UPDATE, 1, 48_000)]);
    for _ in 0..4 {
        peer.frame((kind::DATA, 0, 1), &[0; 16_384]);
    }
    assert_eq!(peer.turn().unwrap_err().code, ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn stream_beyond_the_bound_is_refused_and_costs_nothing_else() {
    let mut peer = Peer::new(&[]);
    for stream in [1, 3, 5, 7] {
        peer.call(stream);
    }
    peer.frame((kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 9), INDEXED);
    assert_eq!(peer.turn().unwrap().len(), 4);
    let refused = (kind::RST_STREAM, 9, ErrorCode::REFUSED_STREAM.0 as usize);
    assert_eq!(peer.sent(), [refused]);
    peer.connection.reset(1, ErrorCode::CANCEL);
    // Its headers have put something into the table all the same.
    let flags = flag::END_HEADERS | flag::END_STREAM;
    peer.frame((kind::HEADERS, flags, 11), b"\x83\x86\x84\xbe");
    assert_eq!(peer.turn().unwrap(), ["11 / Some([])"]);
}

#[test]
fn headers_beyond_the_bound_are_answered_and_read() {
    let mut peer = Peer::new(&[]);
    let mut block = INDEXED.to_vec();
    block.extend(b"\x40\x01b\x7f\x81\x01");
    block.extend([b'b'; 256]);
    peer.frame((kind::HEADERS, flag::END_HEADERS, 1), &block);
    assert_eq!(peer.turn().unwrap(), Vec::<String>::new());
    let kinds: Vec<_> = peer.sent().iter().map(|sent| sent.0).collect();
    assert_eq!(kinds, [kind::HEADERS, kind::RST_STREAM]);
    peer.frame((kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 3), b"\x83\x86\x84\xbf");
    assert_eq!(peer.turn().unwrap(), ["3 / Some([])"]);
}

#[test]
fn floods_cost_the_connection() {
    let calm = ErrorCode::ENHANCE_YOUR_CALM;
    let mut peer = Peer::new(&[]);
    for stream in [1, 3, 5] {
        peer.call(stream).frame((kind::RST_STREAM, 0, stream), &[0; 4]);
    }
    assert_eq!(peer.turn().unwrap_err().code, calm, "opened and reset");

    let mut peer = Peer::new(&[]);
    for stream in [1, 3, 5, 7] {
        peer.call(stream).turn().unwrap();
        peer.frame((kind::RST_STREAM, 0, stream), &[0; 4]);
        assert_eq!(peer.turn().unwrap(), [format!("{stream} reset")], "in turns of their own");
    }

    let mut peer = Peer::new(&[]);
    for stream in [1, 3, 5] {
        peer.frame((kind::HEADERS, flag::END_HEADERS, stream), b"\x83\x86");
    }
    assert_eq!(peer.turn().unwrap_err().code, calm, "made to reset");
    assert_eq!(peer.sent().last(), Some(&(kind::GOAWAY, 0, calm.0 as usize)));

    let mut peer = Peer::new(&[]);
    peer.frame((kind::HEADERS, 0, 1), BLOCK);
    for _ in 0..20 {
        peer.frame((kind::CONTINUATION, 0, 1), b"");
    }
    assert_eq!(peer.turn().unwrap_err().code, calm, "a block without an end");

    let mut peer = Peer::new(&[]);
    let bomb = [INDEXED, &[0xbe; 40]].concat();
    peer.frame((kind::HEADERS, flag::END_HEADERS, 1), &bomb);
    assert_eq!(peer.turn().unwrap_err().code, calm, "a few bytes that stand for many");
}

#[test]
fn peer_that_is_to_go_is_served_until_it_knows() {
    let mut peer = Peer::new(&[]);
    peer.call(1).turn().unwrap();
    peer.connection.go_away();
    let sent = peer.sent();
    assert_eq!(sent, [(kind::GOAWAY, 0, 0), (kind::PING, 0, 8)]);
    assert_eq!(peer.call(3).turn().unwrap().len(), 1, "under way");
    peer.frame((kind::PING, flag::ACK, 0), b"draining");
    peer.call(5);
    assert_eq!(peer.turn().unwrap(), Vec::<String>::new());
    assert_eq!(peer.sent(), [(kind::GOAWAY, 0, 0)]);
    assert!(!peer.connection.is_done());
    for stream in [1, 3] {
        assert!(peer.connection.send_grpc(stream, &Bytes::new()));
    }
    assert!(peer.connection.is_done());
}

#[test]
fn streams_of_even_ids_were_never_opened() {
    for (kind, payload) in [
        (kind::HEADERS, BLOCK),
        (kind::DATA, &[0; 4]),
        (kind::RST_STREAM, &[0; 4]),
        (kind::WINDOW_UPDATE, &[0, 0, 0, 1]),
    ] {
        let mut peer = Peer::new(&[]);
        peer.call(3).frame((kind, flag::END_HEADERS, 2), payload);
        assert_eq!(peer.turn().unwrap_err().code, ErrorCode::PROTOCOL_ERROR, "{kind}");
    }
}

#[test]
fn stream_is_reset_once() {
    let mut peer = Peer::new(&[]);
    peer.call(1).frame((kind::DATA, 0, 1), b"a");
    peer.frame((kind::PRIORITY, 0, 1), &[0, 0, 0, 1, 0]);
    assert_eq!(peer.turn().unwrap(), ["1 / Some([])", "1 reset"]);
    let closed = ErrorCode::STREAM_CLOSED.0 as usize;
    assert_eq!(peer.sent(), [(kind::RST_STREAM, 1, closed)]);
}

#[test]
fn first_headers_after_a_change_of_the_table_say_that_it_is_empty() {
    let mut peer = Peer::new(&[(setting::HEADER_TABLE_SIZE, 0)]);
    peer.call(1).call(3).turn().unwrap();
    assert!(peer.connection.send_grpc(1, &Bytes::new()));
    assert!(peer.connection.send_grpc(3, &Bytes::new()));
    let lengths: Vec<_> =
        peer.sent().iter().map(|(_, stream, length)| (*stream, *length)).collect();
    let [first, .., last] = *lengths else { panic!("{lengths:?}") };
    let second = lengths.iter().find(|(stream, _)| *stream == 3).unwrap();
    assert_eq!((first.1, last.0), (second.1 + 1, 3));
}
