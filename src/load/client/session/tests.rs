use tollgate::http2::frame::flag::{ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY};
use tollgate::http2::frame::kind::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use tollgate::http2::frame::setting::{
    HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE,
};

use super::*;

/// `:status: 200` and `grpc-status: 0`, the second as a literal.
const OK: &[u8] = b"\x88\x00\x0bgrpc-status\x010";
/// `:status: 200`.
const BEGUN: &[u8] = b"\x88";

type Ended = Vec<(char, Result<Vec<u8>, Option<Fault>>)>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    FrameHeader::new(payload.len(), kind, flags, stream).write(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::write_settings(&mut frame, pairs);
    frame
}

fn answer(stream: u32, message: &[u8]) -> Vec<u8> {
    let prefixed = [&[0, 0, 0, 0, message.len() as u8], message].concat();
    [
        frame(HEADERS, END_HEADERS, stream, BEGUN),
        frame(DATA, 0, stream, &prefixed),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, OK),
    ]
    .concat()
}

/// The frames that a session has written: type, flags, stream, payload.
fn written(session: &mut Session<char>) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let out = std::mem::take(session.out());
    let mut rest = out.strip_prefix(&PREFACE[..]).unwrap_or(&out);
    let mut frames = Vec::new();
    while let Some(header) = FrameHeader::read(rest) {
        let (payload, more) = rest[HEADER_BYTES..].split_at(header.length);
        frames.push((header.kind, header.flags, header.stream, payload.to_vec()));
        rest = more;
    }
    frames
}

fn receive(session: &mut Session<char>, input: &[u8]) -> Result<Ended, Fault> {
    let mut ended = Ended::new();
    let taken = session.receive(input, &mut |token, end| {
        let end = match end {
            End::Answered(message) => Ok(message.to_vec()),
            End::Unprocessed => Err(None),
            End::Failed(fault) => Err(Some(fault)),
        };
        ended.push((token, end));
    })?;
    assert_eq!(taken, input.len());
    Ok(ended)
}

/// A session whose peer has these settings, and that has written what begins it.
fn session(most: usize, pairs: &[(u16, u32)]) -> Session<char> {
    let mut session = Session::new(Requests::new("http", "a"), most);
    assert!(session.out().starts_with(&PREFACE[..]));
    assert_eq!(receive(&mut session, &settings(pairs)), Ok(vec![]));
    let kinds: Vec<_> = written(&mut session).iter().map(|frame| (frame.0, frame.1)).collect();
    assert_eq!(kinds, [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]);
    session
}

fn call(session: &mut Session<char>, token: char, message: &[u8]) {
    assert!(!session.is_full());
    session.call(token, |out| out.extend_from_slice(message));
}

#[test]
fn calls_are_headers_and_one_message_each() {
    let mut session = session(4, &[]);
    call(&mut session, 'a', b"first");
    call(&mut session, 'b', b"");
    let (end, mut requests) = (END_STREAM, Requests::new("http", "a"));
    let [first, second] = [(); 2].map(|()| requests.next().to_vec());
    assert_eq!(
        written(&mut session),
        [
            (HEADERS, END_HEADERS, 1, first),
            (DATA, end, 1, b"\0\0\0\0\x05first".to_vec()),
            (HEADERS, END_HEADERS, 3, second),
            (DATA, end, 3, b"\0\0\0\0\0".to_vec()),
        ]
    );
}

#[test]
fn headers_use_no_table_that_the_peer_makes_smaller() {
    for (bytes, indexed) in [(4_096, true), (0, false)] {
        let mut session = session(4, &[(HEADER_TABLE_SIZE, bytes)]);
        call(&mut session, 'a', b"");
        call(&mut session, 'b', b"");
        let blocks = written(&mut session).into_iter().filter(|frame| frame.0 == HEADERS);
        let blocks: Vec<_> = blocks.map(|(.., block)| block).collect();
        assert_eq!(blocks[1].len() < 10, indexed, "{blocks:?}");
    }
}

#[test]
fn answers_end_their_calls_however_the_bytes_arrive() {
    let answers = [answer(3, b"three"), answer(1, b"")].concat();
    for split in 0..answers.len() {
        let mut session = session(4, &[]);
        call(&mut session, 'a', b"m");
        call(&mut session, 'b', b"m");
        let mut ended = Vec::new();
        let mut note = |token, end: End<'_>| match end {
            End::Answered(message) => ended.push((token, message.to_vec())),
            other => panic!("{other:?}"),
        };
        let taken = session.receive(&answers[..split], &mut note).unwrap();
        assert!(taken <= split);
        let rest = session.receive(&answers[taken..], &mut note).unwrap();
        assert_eq!(taken + rest, answers.len());
        assert_eq!(ended, [('b', b"three".to_vec()), ('a', Vec::new())], "split at {split}");
    }
}

#[test]
fn padding_priority_and_continuations_are_read() {
    let mut session = session(4, &[]);
    call(&mut session, 'a', b"m");
    let (begin, end) = OK.split_at(4);
    let input = [
        frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, b"\x02\0\0\0\0\0\x88\0\0"),
        frame(DATA, PADDED, 1, b"\x03\0\0\0\0\x02hi\0\0\0"),
        frame(HEADERS, END_STREAM, 1, begin),
        frame(CONTINUATION, END_HEADERS, 1, end),
    ];
    assert_eq!(receive(&mut session, &input.concat()), Ok(vec![('a', Ok(b"hi".to_vec()))]));
    let interrupted = [frame(HEADERS, 0, 1, BEGUN), frame(PING, 0, 0, &[0; 8])].concat();
    assert!(matches!(receive(&mut session, &interrupted), Err(Fault::Protocol(_))));
}

#[test]
fn message_waits_for_the_windows_of_the_peer() {
    let mut session = session(4, &[(INITIAL_WINDOW_SIZE, 7)]);
    call(&mut session, 'a', b"0123456789");
    let mut sent = Vec::new();
    let mut data = |session: &mut Session<char>| {
        let frames = written(session);
        let frames: Vec<_> = frames.into_iter().filter(|frame| frame.0 == DATA).collect();
        sent.extend(frames.iter().flat_map(|frame| frame.3.clone()));
        frames.iter().map(|frame| (frame.1, frame.3.len())).collect::<Vec<_>>()
    };
    assert_eq!(data(&mut session), [(0, 7)]);
    assert!(session.is_full(), "the next call would overtake the rest");
    // Of the connection, which was open.
    receive(&mut session, &frame(WINDOW_UPDATE, 0, 0, &9_u32.to_be_bytes())).unwrap();
    assert_eq!(data(&mut session), []);
    receive(&mut session, &frame(WINDOW_UPDATE, 0, 1, &2_u32.to_be_bytes())).unwrap();
    assert_eq!(data(&mut session), [(0, 2)]);
    // The window of open streams changes with the setting.
    receive(&mut session, &settings(&[(INITIAL_WINDOW_SIZE, 100)])).unwrap();
    assert_eq!(data(&mut session), [(END_STREAM, 6)]);
    assert_eq!(sent, b"\0\0\0\0\x0a0123456789");
    assert!(!session.is_full());
}

#[test]
fn message_keeps_to_the_window_of_the_connection_and_to_the_size_of_frames() {
    let mut session = session(4, &[(INITIAL_WINDOW_SIZE, 1 << 20), (MAX_FRAME_SIZE, 20_000)]);
    call(&mut session, 'a', &vec![b'x'; 70_000]);
    let sizes = |session: &mut Session<char>| {
        let frames = written(session);
        let data = frames.iter().filter(|frame| frame.0 == DATA);
        data.map(|frame| frame.3.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&mut session), [20_000, 20_000, 20_000, 5_535]);
    receive(&mut session, &frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes())).unwrap();
    assert_eq!(sizes(&mut session), [70_005 - 65_535]);
}

#[test]
fn answer_before_the_message_is_sent_resets_the_call() {
    let mut session = session(4, &[(INITIAL_WINDOW_SIZE, 7)]);
    call(&mut session, 'a', b"0123456789");
    let refused = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88\x00\x0bgrpc-status\x018");
    assert_eq!(receive(&mut session, &refused), Ok(vec![('a', Err(Some(Fault::Grpc(8))))]));
    let last = written(&mut session).pop().unwrap();
    assert_eq!(last, (RST_STREAM, 0, 1, ErrorCode::CANCEL.0.to_be_bytes().to_vec()));
    assert!(!session.is_full(), "nothing waits any more");
}

#[test]
fn calls_at_a_time_are_those_that_both_sides_allow() {
    for (most, allowed, expected) in [(2, 100, 2), (100, 3, 3)] {
        let mut session = session(most, &[(MAX_CONCURRENT_STREAMS, allowed)]);
        (0..expected).for_each(|_| call(&mut session, 'a', b"m"));
        assert!(session.is_full());
        receive(&mut session, &answer(1, b"")).unwrap();
        assert!(!session.is_full());
    }
}

#[test]
fn calls_above_the_last_stream_of_a_goodbye_are_unprocessed() {
    let mut session = session(4, &[]);
    for token in ['a', 'b', 'c'] {
        call(&mut session, token, b"m");
    }
    let goodbye = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
    assert_eq!(receive(&mut session, &goodbye(MAX_31)), Ok(vec![]));
    assert!(session.is_full() && !session.is_over());
    let mut ended = receive(&mut session, &goodbye(1)).unwrap();
    ended.sort_by_key(|(token, _)| *token);
    assert_eq!(ended, [('b', Err(None)), ('c', Err(None))]);
    assert_eq!(receive(&mut session, &answer(1, b"")), Ok(vec![('a', Ok(vec![]))]));
    assert!(session.is_over());
    let broken = frame(GOAWAY, 0, 0, &[[0; 4], 11_u32.to_be_bytes()].concat());
    assert_eq!(receive(&mut session, &broken), Err(Fault::GoAway(11)));
}

#[test]
fn failed_calls_say_why() {
    let ended = END_HEADERS | END_STREAM;
    let unfinished = [
        frame(HEADERS, END_HEADERS, 1, BEGUN),
        frame(DATA, 0, 1, b"\0\0\0\0\x09hi"),
        frame(HEADERS, ended, 1, OK),
    ]
    .concat();
    let cases = [
        (frame(RST_STREAM, 0, 1, &7_u32.to_be_bytes()), Fault::Reset(7)),
        (frame(HEADERS, ended, 1, b"\x88\x00\x0bgrpc-status\x0214"), Fault::Grpc(14)),
        (frame(HEADERS, ended, 1, b"\x8d"), Fault::Http(404)),
        (frame(HEADERS, END_HEADERS, 1, b"\x8e"), Fault::Http(500)),
        (frame(HEADERS, ended, 1, BEGUN), Fault::Answer("it has no status")),
        (frame(HEADERS, ended, 1, OK), Fault::Answer("it has no message")),
        (frame(DATA, END_STREAM, 1, b""), Fault::Answer("it has no status")),
        (unfinished, Fault::Answer("it has another length than it says")),
    ];
    for (input, fault) in cases {
        let mut session = session(4, &[]);
        call(&mut session, 'a', b"m");
        assert_eq!(receive(&mut session, &input), Ok(vec![('a', Err(Some(fault)))]));
    }
}

#[test]
fn pings_are_answered_and_faults_end_the_session() {
    let mut session = session(4, &[]);
    receive(&mut session, &frame(PING, 0, 0, b"01234567")).unwrap();
    receive(&mut session, &frame(PING, ACK, 0, b"01234567")).unwrap();
    // An unknown type is ignored.
    receive(&mut session, &frame(0xbe, 0, 0, b"?")).unwrap();
    assert_eq!(written(&mut session), [(PING, ACK, 0, b"01234567".to_vec())]);
    let faults = [
        frame(PUSH_PROMISE, 0, 1, &[0; 4]),
        frame(CONTINUATION, END_HEADERS, 1, OK),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(GOAWAY, 0, 0, &[0; 7]),
        [0, 0x40, 1, DATA, 0, 0, 0, 0, 1].to_vec(),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff"),
    ];
    for input in faults {
        assert!(matches!(receive(&mut session, &input), Err(Fault::Protocol(_))), "{input:x?}");
        session = self::session(4, &[]);
        call(&mut session, 'a', b"m");
    }
    let mut stranger: Session<char> = Session::new(Requests::new("http", "a"), 1);
    assert!(receive(&mut stranger, b"HTTP/1.1 400 Bad Request\r\n\r\n").is_err());
    let mut failed = 0;
    session.fail(&Fault::Reset(1), &mut |_, _| failed += 1);
    assert_eq!(failed, 1);
}
