//! Calls at the edges of gRPC and HTTP/2, written byte by byte: the answer to each, which is the
//! same from every engine.
//!
//! * `messages`: what comes after the headers. `headers`: the headers themselves.
//!
//! An answer is written as one line: `200 grpc 0 + message`; the status of HTTP, that of gRPC, and
//! a message if there is one. Or `reset CODE`, `silence`, `goaway CODE`, `closed`. The connection
//! serves another call after each but the last two.

mod headers;
mod messages;

use std::time::Duration;

use prost::Message as _;

use crate::conn::{Answer, Conn, PADDED};
use crate::hpack::block_of_bytes;
use crate::peer::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, raw};
use crate::support::engines::ENGINES;
use crate::support::grpc::{SHOULD_RATE_LIMIT, frame};
use crate::support::tollgate::{Options, request};
use crate::{POLICIES, many};

/// One call, and the answer to it.
pub struct Corner {
    pub name: &'static str,
    pub call: Call,
    pub answer: &'static str,
    /// Engines with another answer.
    pub differs: &'static [Differs],
}

/// An engine, its answer, and the reason.
pub type Differs = (&'static str, &'static str, &'static str);

/// A corner where engines do not differ.
pub fn corner(name: &'static str, call: Call, answer: &'static str) -> Corner {
    Corner { name, call, answer, differs: &[] }
}

/// A call whose headers are no headers: of lean, an error of its stream.
pub fn malformed(name: &'static str, call: Call) -> Corner {
    let differs = &[(
        "lean",
        "reset PROTOCOL_ERROR",
        "RFC 9113, section 8.1.1: a malformed request is an error of its stream",
    )];
    Corner { differs, ..corner(name, call, "goaway PROTOCOL_ERROR") }
}

/// A frame of a wrong size: of lean, with the code of that.
pub fn missized(name: &'static str, call: Call, lean: &'static [Differs]) -> Corner {
    Corner { differs: lean, ..corner(name, call, "goaway PROTOCOL_ERROR") }
}

/// A frame after the headers.
#[derive(Clone)]
enum Part {
    Data(Vec<u8>),
    /// DATA and so many bytes of padding.
    Padded(Vec<u8>, u8),
    Trailers(Vec<u8>),
    /// Kind, flags and payload, as they are.
    Raw(u8, u8, Vec<u8>),
}

/// A call. By default it is a good one.
#[derive(Clone)]
pub struct Call {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    parts: Vec<Part>,
    /// The last part has no `END_STREAM`.
    open: bool,
}

impl Call {
    pub fn good() -> Self {
        Self::of(SHOULD_RATE_LIMIT).data(&message())
    }

    /// A call of this path without a message.
    pub fn of(path: &str) -> Self {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let call = Self { fields: Vec::new(), parts: Vec::new(), open: false };
        fields.iter().fold(call, |call, (name, value)| call.with(name, value))
    }

    pub fn with(self, name: &str, value: &str) -> Self {
        self.with_bytes(name.as_bytes(), value.as_bytes())
    }

    pub fn with_bytes(mut self, name: &[u8], value: &[u8]) -> Self {
        self.fields.push((name.to_vec(), value.to_vec()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(key, _)| key != name.as_bytes());
        self
    }

    /// With another value of a header, in its place.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        let field = self.fields.iter_mut().find(|(key, _)| key == name.as_bytes());
        field.expect("a header to replace").1 = value.as_bytes().to_vec();
        self
    }

    /// The parts so far are none.
    pub fn empty(mut self) -> Self {
        self.parts.clear();
        self
    }

    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.parts.push(Part::Data(bytes.to_vec()));
        self
    }

    pub fn padded(mut self, bytes: &[u8], padding: u8) -> Self {
        self.parts.push(Part::Padded(bytes.to_vec(), padding));
        self
    }

    pub fn trailers(mut self, fields: &[(&str, &str)]) -> Self {
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        self.parts.push(Part::Trailers(block_of_bytes(&fields)));
        self
    }

    pub fn raw(mut self, kind: u8, flags: u8, payload: &[u8]) -> Self {
        self.parts.push(Part::Raw(kind, flags, payload.to_vec()));
        self
    }

    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    fn frames(&self, id: u32) -> Vec<u8> {
        let fields: Vec<_> = self.fields.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        let block = block_of_bytes(&fields);
        let last = self.parts.len();
        let end = |at| if at == last && !self.open { END_STREAM } else { 0 };
        let mut frames = headers(id, &block, end(0));
        for (at, part) in self.parts.iter().enumerate() {
            let end = end(at + 1);
            match part {
                Part::Data(bytes) if bytes.is_empty() => frames.extend(raw(DATA, end, id, &[])),
                Part::Data(bytes) => {
                    let count = bytes.len().div_ceil(16_384);
                    for (at, chunk) in bytes.chunks(16_384).enumerate() {
                        frames.extend(raw(DATA, if at + 1 == count { end } else { 0 }, id, chunk));
                    }
                }
                Part::Padded(bytes, padding) => {
                    let pad = vec![0; usize::from(*padding)];
                    let payload = [&[*padding][..], bytes, &pad].concat();
                    frames.extend(raw(DATA, PADDED | end, id, &payload));
                }
                Part::Trailers(block) => frames.extend(headers(id, block, end)),
                Part::Raw(kind, flags, payload) => frames.extend(raw(*kind, *flags, id, payload)),
            }
        }
        frames
    }
}

/// A block in HEADERS and CONTINUATION.
fn headers(id: u32, block: &[u8], end: u8) -> Vec<u8> {
    let (mut frames, count) = (Vec::new(), block.len().div_ceil(16_384).max(1));
    for at in 0..count {
        let part = &block[at * 16_384..block.len().min((at + 1) * 16_384)];
        let (kind, end) = if at == 0 { (HEADERS, end) } else { (CONTINUATION, 0) };
        let last = if at + 1 == count { END_HEADERS } else { 0 };
        frames.extend(raw(kind, end | last, id, part));
    }
    frames
}

/// The message of a good call, with its prefix.
pub fn message() -> Vec<u8> {
    frame(false, &many().encode_to_vec()).to_vec()
}

/// A message with one descriptor for each of `values`.
pub fn message_of(values: &[&str]) -> Vec<u8> {
    let entries: Vec<_> = values.iter().map(|value| [("many", *value)]).collect();
    let asked = request("d", &entries.iter().map(|entry| &entry[..]).collect::<Vec<_>>());
    frame(false, &asked.encode_to_vec()).to_vec()
}

/// The codes of RFC 9113, section 7.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

pub fn code(number: u32) -> &'static str {
    CODES[number as usize]
}

fn line(answer: &Answer) -> String {
    let mut line = match answer.field(":status") {
        Some(status) => status.to_owned(),
        // A reset after a whole answer only asks for no more of the request.
        None => return format!("reset {}", code(answer.reset.expect("a reset"))),
    };
    if let Some(status) = answer.status() {
        line.push_str(" grpc ");
        line.push_str(status);
    }
    if !answer.body.is_empty() {
        line.push_str(" + message");
    }
    if !answer.ended {
        line.push_str(", then reset ");
        line.push_str(code(answer.reset.expect("a reset")));
    }
    line
}

/// The answer to `call`, after which the connection serves another one, if it is still there.
fn answer_to(conn: &mut Conn, call: &Call) -> String {
    let id = conn.stream();
    conn.send(&call.frames(id));
    let mut found = match conn.answer_within(id, SILENCE) {
        Ok(answer) => answer.map(|answer| line(&answer)),
        Err(_) => Some("silence".to_owned()),
    };
    if found.is_some() {
        let next = conn.stream();
        conn.send(&Call::good().frames(next));
        match conn.answer_within(next, SILENCE) {
            Ok(Some(answer)) => assert_eq!(line(&answer), GOOD),
            // The answer, and an end of the connection behind it.
            Ok(None) => found = None,
            Err(_) => found = Some("a silent connection".to_owned()),
        }
    }
    match (found, conn.goaways.last()) {
        (Some(line), None) => line,
        (_, Some((_, number))) => format!("goaway {}", code(*number)),
        (None, None) => "closed".to_owned(),
    }
}

/// Longer than tollgate waits for a message here.
const SILENCE: Duration = Duration::from_secs(2);

const GOOD: &str = "200 grpc 0 + message";

/// Compares every corner on every engine, and tells of all differences at once.
fn compare(corners: &[Corner]) {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let tollgate = options.set("listeners.message_timeout=300ms").start();
        let mut wrong = Vec::new();
        for Corner { name, call, answer, differs } in corners {
            let found = answer_to(&mut Conn::open(tollgate.at.grpc, &[]), call);
            let known = differs.iter().find(|(of, ..)| of == engine);
            let expected = known.map_or(*answer, |(_, answer, _)| *answer);
            if found != expected {
                wrong.push(format!("{name}: {found}, not {expected}"));
            }
        }
        assert!(wrong.is_empty(), "{engine}:\n{}", wrong.join("\n"));
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

#[test]
fn messages_have_one_answer_from_every_engine() {
    compare(&messages::corners());
}

#[test]
fn headers_have_one_answer_from_every_engine() {
    compare(&headers::corners());
}

#[test]
fn call_reset_before_its_answer_has_none() {
    for engine in ENGINES {
        let tollgate = Options::serving(POLICIES).engine(engine).start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        let id = conn.stream();
        conn.send(&Call::of(SHOULD_RATE_LIMIT).open().raw(3, 0, &8_u32.to_be_bytes()).frames(id));
        assert!(conn.is_read());
        while conn.frame_within(Duration::from_millis(100)).is_ok_and(|frame| frame.is_some()) {}
        assert!(!conn.closed && !conn.answers.contains_key(&id), "{engine}: {:?}", conn.answers);
        assert_eq!(answer_to(&mut conn, &Call::good()), GOOD);
    }
}
