//! Flow control in both directions, and the sizes of frames and tables.
//!
//! Source: RFC 9113, sections 4.2, 5.2 and 6.9; RFC 7541, section 4.2.

use std::time::Duration;

use prost::Message as _;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::POLICIES;
use crate::conn::{Answer, Conn, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, PADDED};
use crate::corners::{code, message, message_of};
use crate::peer::{DATA, END_STREAM, raw};
use crate::support::engines::ENGINES;
use crate::support::grpc::{SHOULD_RATE_LIMIT, frame};
use crate::support::tollgate::{Options, Tollgate};

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const MOST: u32 = (1 << 31) - 1;
/// The window of a connection before any `WINDOW_UPDATE`.
const INITIAL: usize = 65_535;
/// Long enough for all that comes to come.
const QUIET: Duration = Duration::from_millis(200);

fn on_every_engine(test: impl Fn(&str, &Tollgate)) {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let options = options.set("bounds.message_bytes=1048576");
        let tollgate = options.set("bounds.value_bytes=1048576").start();
        test(engine, &tollgate);
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

/// A connection of which each stream has this window, and the connection any.
fn with_window(tollgate: &Tollgate, bytes: u32) -> Conn {
    let mut conn = Conn::open(tollgate.at.grpc, &[(INITIAL_WINDOW_SIZE, bytes)]);
    conn.widen(0, MOST - INITIAL as u32);
    conn
}

/// Reads all that comes.
fn read(conn: &mut Conn) {
    while conn.frame_within(QUIET).is_ok_and(|frame| frame.is_some()) {}
}

/// A decision about so many descriptors; the call is complete.
fn decision(conn: &mut Conn, descriptors: usize) -> u32 {
    let id = conn.call(SHOULD_RATE_LIMIT);
    conn.finish(id, &message_of(&vec!["v"; descriptors]));
    id
}

/// The answer to the same call with any window.
fn unhindered(tollgate: &Tollgate, descriptors: usize) -> usize {
    let mut conn = with_window(tollgate, MOST);
    let id = decision(&mut conn, descriptors);
    served(&conn.whole_answer(id).unwrap()).body.len()
}

fn served(answer: &Answer) -> &Answer {
    assert_eq!(answer.status(), Some("0"), "{answer:?}");
    answer
}

#[test]
fn answer_comes_through_a_window_of_one_byte() {
    on_every_engine(|engine, tollgate| {
        let bytes = unhindered(tollgate, 10);
        let mut conn = with_window(tollgate, 1);
        let id = decision(&mut conn, 10);
        let mut frames = 0;
        while !conn.answer(id).is_over() {
            let frame = conn.frame().unwrap();
            if frame.kind == DATA && !frame.payload.is_empty() {
                assert_eq!(frame.payload.len(), 1, "{engine}");
                frames += 1;
                conn.widen(id, 1);
            }
        }
        assert_eq!((frames, served(conn.answer(id)).body.len()), (bytes, bytes), "{engine}");
    });
}

#[test]
fn window_that_changes_amid_an_answer_is_kept_to() {
    on_every_engine(|engine, tollgate| {
        let bytes = unhindered(tollgate, 20);
        let mut conn = with_window(tollgate, 0);
        let id = decision(&mut conn, 20);
        let mut expect = |change: &dyn Fn(&mut Conn), expected: usize| {
            change(&mut conn);
            read(&mut conn);
            assert_eq!(conn.answer(id).body.len(), expected, "{engine}");
        };
        let initial =
            |bytes| move |conn: &mut Conn| conn.send_settings(&[(INITIAL_WINDOW_SIZE, bytes)]);
        expect(&|_| {}, 0);
        expect(&initial(100), 100);
        // 50 bytes less than none.
        expect(&initial(50), 100);
        expect(&|conn| conn.widen(id, 50), 100);
        expect(&|conn| conn.widen(id, 10), 110);
        // The last value of several counts.
        let twice = [(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 60)];
        expect(&|conn| conn.send_settings(&twice), 120);
        expect(&initial(1 << 20), bytes);
        served(conn.answer(id));
    });
}

#[test]
fn answers_of_many_calls_share_the_window_of_the_connection() {
    on_every_engine(|engine, tollgate| {
        let bytes = unhindered(tollgate, 100);
        let calls = INITIAL / bytes + 3;
        let mut conn = Conn::open(tollgate.at.grpc, &[(INITIAL_WINDOW_SIZE, MOST)]);
        let ids: Vec<_> = (0..calls).map(|_| decision(&mut conn, 100)).collect();
        let read_bytes = |conn: &Conn| conn.answers.values().map(|a| a.body.len()).sum::<usize>();
        read(&mut conn);
        assert_eq!(read_bytes(&conn), INITIAL, "{engine}");
        conn.widen(0, 1_000);
        read(&mut conn);
        assert_eq!(read_bytes(&conn), INITIAL + 1_000, "{engine}");
        // A refusal has no body, so it needs no window.
        let id = conn.call(SHOULD_RATE_LIMIT);
        conn.finish(id, b"\x01\0\0\0\0");
        assert_eq!(conn.whole_answer(id).unwrap().status(), Some("13"), "{engine}");
        conn.widen(0, MOST >> 1);
        for id in ids {
            assert_eq!(served(&conn.whole_answer(id).unwrap()).body.len(), bytes, "{engine}");
        }
    });
}

#[test]
fn frames_are_as_long_as_the_peer_reads() {
    on_every_engine(|engine, tollgate| {
        let mut whole = None;
        for most in [16_384, 20_000, (1 << 24) - 1] {
            let settings = [(INITIAL_WINDOW_SIZE, MOST), (MAX_FRAME_SIZE, most)];
            let mut conn = Conn::open(tollgate.at.grpc, &settings);
            conn.widen(0, MOST >> 1);
            let id = conn.call(SHOULD_RATE_LIMIT);
            // The answer has the values of the descriptors in it.
            conn.finish(id, &message_of(&["v".repeat(900).as_str(); 60]));
            let bytes = served(&conn.whole_answer(id).unwrap()).body.len();
            assert!(bytes > 32_768, "{bytes} are no more than two frames");
            assert_eq!(bytes, *whole.get_or_insert(bytes), "{engine}");
            assert!(conn.longest <= most as usize, "{engine}: {} of {most}", conn.longest);
        }
    });
}

/// A message to reflection.
fn asked_of(request: MessageRequest) -> Vec<u8> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    frame(false, &request.encode_to_vec()).to_vec()
}

#[test]
fn described_services_come_through_small_windows() {
    let service = "envoy.service.ratelimit.v3.RateLimitService".to_owned();
    let asked = asked_of(MessageRequest::FileContainingSymbol(service)).repeat(20);
    on_every_engine(|engine, tollgate| {
        let describe = |window: u32| {
            let mut conn = with_window(tollgate, window);
            let id = conn.call(REFLECTION);
            conn.finish(id, &asked);
            while !conn.answer(id).is_over() {
                if let Some(frame) = conn.frame()
                    && frame.kind == DATA
                    && !frame.payload.is_empty()
                    && window < MOST
                {
                    conn.widen(id, frame.payload.len() as u32);
                }
            }
            served(conn.answer(id)).body.clone()
        };
        let whole = describe(MOST);
        assert!(whole.len() > 10_000, "{engine}: {} bytes", whole.len());
        assert_eq!(describe(100), whole, "{engine}");
    });
}

/// Sends a message in frames of `part` bytes with so much padding, as the windows allow.
fn send_within_windows(conn: &mut Conn, id: u32, message: &[u8], part: usize, padding: Option<u8>) {
    let initial = conn.settings.get(&INITIAL_WINDOW_SIZE).map_or(INITIAL, |size| *size as usize);
    let (mut sent, count) = (0, message.len().div_ceil(part));
    for (at, part) in message.chunks(part).enumerate() {
        let length = part.len() + padding.map_or(0, |padding| 1 + usize::from(padding));
        let room = |conn: &Conn, id, initial| initial + conn.widened.get(&id).unwrap_or(&0);
        while sent + length > room(conn, id, initial) || conn.sent + length > room(conn, 0, INITIAL)
        {
            assert!(conn.frame().is_some(), "closed: {:?}", conn.goaways);
        }
        let end = if at + 1 == count { END_STREAM } else { 0 };
        let frame = match padding {
            None => raw(DATA, end, id, part),
            Some(padding) => {
                let payload = [&[padding][..], part, &vec![0; padding.into()]].concat();
                raw(DATA, PADDED | end, id, &payload)
            }
        };
        conn.send(&frame);
        conn.sent += length;
        sent += length;
    }
}

#[test]
fn message_larger_than_the_windows_arrives() {
    on_every_engine(|engine, tollgate| {
        let large = message_of(&["v".repeat(700_000).as_str()]);
        for (part, padding) in [(16_384, None), (100, None), (16_000, Some(200))] {
            let mut conn = with_window(tollgate, MOST);
            let id = conn.call(SHOULD_RATE_LIMIT);
            send_within_windows(&mut conn, id, &large, part, padding);
            served(&conn.whole_answer(id).expect(engine));
        }
    });
}

#[test]
fn padding_gives_its_window_back() {
    on_every_engine(|engine, tollgate| {
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        let message = message_of(&["v".repeat(1_000).as_str()]);
        // 257 bytes for each of the message: more than the windows, of calls and connection.
        for _ in 0..4 {
            let id = conn.call(SHOULD_RATE_LIMIT);
            send_within_windows(&mut conn, id, &message, 1, Some(255));
            served(&conn.whole_answer(id).expect(engine));
        }
    });
}

/// The code with which bytes beyond a window end: `parts` of 16 KiB on each of `calls` of which
/// none is read. Reflection reads no request while its answers find no window.
fn overrun(tollgate: &Tollgate, calls: usize, parts: usize) -> Option<&'static str> {
    let mut conn = Conn::open(tollgate.at.grpc, &[(INITIAL_WINDOW_SIZE, 0)]);
    let list = asked_of(MessageRequest::ListServices(String::new()));
    let flood: Vec<u8> = list.iter().copied().cycle().take(16_384).collect();
    let ids: Vec<_> = (0..calls).map(|_| conn.call(REFLECTION)).collect();
    for id in &ids {
        conn.send(&raw(DATA, 0, *id, &flood).repeat(parts));
    }
    while conn.goaways.is_empty() && conn.answers.values().all(|answer| answer.reset.is_none()) {
        match conn.frame_within(Duration::from_secs(2)) {
            Ok(Some(_)) => {}
            _ => break,
        }
    }
    let resets = conn.answers.values().filter_map(|answer| answer.reset);
    let goaways = conn.goaways.iter().map(|(_, number)| *number);
    resets.chain(goaways).map(code).next()
}

#[test]
fn bytes_beyond_a_window_are_an_error() {
    on_every_engine(|engine, tollgate| {
        let error = Some("FLOW_CONTROL_ERROR");
        // The window of a call is 64 KiB, that of a connection four times as much.
        assert_eq!(overrun(tollgate, 1, 3), None, "{engine}: within both");
        assert_eq!(overrun(tollgate, 1, 40), error, "{engine}: of the call");
        assert_eq!(overrun(tollgate, 20, 3), error, "{engine}: of the connection");
    });
}

#[test]
fn answers_use_no_table_where_the_peer_has_none() {
    on_every_engine(|engine, tollgate| {
        let mut conn = Conn::open(tollgate.at.grpc, &[(HEADER_TABLE_SIZE, 0)]);
        // tollgate has read the setting.
        assert!(conn.is_read());
        conn.decoder.bound = 0;
        for _ in 0..3 {
            let id = conn.call(SHOULD_RATE_LIMIT);
            conn.finish(id, &message());
            served(&conn.whole_answer(id).expect(engine));
        }
    });
}
