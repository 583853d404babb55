//! A connection written by hand and read frame by frame.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::hpack::{Decoder, Fields};
use crate::peer::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE,
    head, raw,
};

pub const GOAWAY: u8 = 7;
pub const ACK: u8 = 1;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 32;

/// Settings by their numbers.
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame of tollgate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The number in the payload of `RST_STREAM` and `WINDOW_UPDATE`, or the code of GOAWAY.
    pub fn number(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The frames of tollgate on a stream.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Headers, then trailers.
    pub blocks: Vec<Fields>,
    pub body: Vec<u8>,
    /// `END_STREAM` has come.
    pub ended: bool,
    /// `RST_STREAM` has come, with this code.
    pub reset: Option<u32>,
}

impl Answer {
    /// The value of a header or a trailer.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.blocks.iter().flatten();
        fields.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> Option<&str> {
        self.field("grpc-status")
    }

    pub fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// A connection. It answers SETTINGS and PING, and gives no window but what its settings say.
pub struct Conn {
    stream: TcpStream,
    unread: Vec<u8>,
    pub decoder: Decoder,
    /// The block of headers that waits for CONTINUATION.
    block: Vec<u8>,
    next: u32,
    pub answers: BTreeMap<u32, Answer>,
    /// The settings of tollgate.
    pub settings: BTreeMap<u16, u32>,
    /// The GOAWAYs so far: last stream and code.
    pub goaways: Vec<(u32, u32)>,
    pub closed: bool,
    /// The longest frame so far.
    pub longest: usize,
    /// PINGs of tollgate are answered.
    pub answers_pings: bool,
    /// The bytes that the `WINDOW_UPDATE`s of tollgate allow, by stream.
    pub widened: BTreeMap<u32, usize>,
    /// The bytes of DATA that were sent under flow control.
    pub sent: usize,
}

impl Conn {
    /// Sends the preface with these settings, and reads those of tollgate.
    pub fn open(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut conn = Self {
            stream,
            unread: Vec::new(),
            decoder: Decoder::default(),
            block: Vec::new(),
            next: 1,
            answers: BTreeMap::new(),
            settings: BTreeMap::new(),
            goaways: Vec::new(),
            closed: false,
            longest: 0,
            answers_pings: true,
            widened: BTreeMap::new(),
            sent: 0,
        };
        conn.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        conn.send_settings(settings);
        let first = conn.frame().expect("a frame");
        assert_eq!((first.kind, first.flags & ACK), (SETTINGS, 0), "SETTINGS come first");
        conn
    }

    pub fn send_settings(&mut self, settings: &[(u16, u32)]) {
        let pair = |(id, value): &(u16, u32)| {
            [id.to_be_bytes().as_slice(), value.to_be_bytes().as_slice()].concat()
        };
        let payload: Vec<u8> = settings.iter().flat_map(pair).collect();
        self.send(&raw(SETTINGS, 0, 0, &payload));
    }

    /// Writes, unless tollgate has closed.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// More window for a stream, or for the connection, which is stream 0.
    pub fn widen(&mut self, id: u32, bytes: u32) {
        self.send(&raw(WINDOW_UPDATE, 0, id, &bytes.to_be_bytes()));
    }

    /// The number of a new stream.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// The next frame; none: tollgate has closed. Panics when it does neither.
    pub fn frame(&mut self) -> Option<Frame> {
        self.frame_within(PATIENCE).expect("a frame or the end within the patience")
    }

    /// The next frame, `Ok(None)` at the end, and `Err` when there is neither in time.
    pub fn frame_within(&mut self, patience: Duration) -> Result<Option<Frame>, ErrorKind> {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        while self.whole().is_none() {
            let mut part = [0; 16 << 10];
            match self.stream.read(&mut part) {
                Ok(0) => self.closed = true,
                Ok(read) => self.unread.extend(&part[..read]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(error.kind()),
                    _ => self.closed = true,
                },
            }
            if self.closed {
                return Ok(None);
            }
        }
        let rest = self.unread.split_off(self.whole().unwrap());
        let whole = std::mem::replace(&mut self.unread, rest);
        let id = u32::from_be_bytes(whole[5..9].try_into().unwrap()) & (u32::MAX >> 1);
        let payload = whole[9..].to_vec();
        let frame = Frame { kind: whole[3], flags: whole[4], id, payload };
        self.note(&frame);
        Ok(Some(frame))
    }

    /// The length of the first frame, if all of it is there.
    fn whole(&self) -> Option<usize> {
        let [a, b, c] = *self.unread.first_chunk()?;
        let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        (self.unread.len() >= length).then_some(length)
    }

    fn note(&mut self, frame: &Frame) {
        self.longest = self.longest.max(frame.payload.len());
        match frame.kind {
            SETTINGS if !frame.has(ACK) => {
                for pair in frame.payload.chunks_exact(6) {
                    let value = u32::from_be_bytes(pair[2..].try_into().unwrap());
                    self.settings.insert(u16::from_be_bytes([pair[0], pair[1]]), value);
                }
                self.send(&raw(SETTINGS, ACK, 0, &[]));
            }
            PING if !frame.has(ACK) && self.answers_pings => {
                self.send(&raw(PING, ACK, 0, &frame.payload));
            }
            WINDOW_UPDATE => {
                *self.widened.entry(frame.id).or_default() += frame.number() as usize;
            }
            GOAWAY => {
                let last = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                self.goaways.push((last, frame.number()));
            }
            RESET => self.answer(frame.id).reset = Some(frame.number()),
            DATA => {
                let answer = self.answer(frame.id);
                answer.body.extend(&frame.payload);
                answer.ended |= frame.has(END_STREAM);
            }
            HEADERS | CONTINUATION => self.note_headers(frame),
            _ => {}
        }
    }

    /// Answers have neither padding nor priority.
    fn note_headers(&mut self, frame: &Frame) {
        assert!(frame.kind != HEADERS || frame.flags & (PADDED | PRIORITY) == 0, "{frame:?}");
        self.block.extend(&frame.payload);
        if frame.kind == HEADERS && frame.has(END_STREAM) {
            self.answer(frame.id).ended = true;
        }
        if frame.has(END_HEADERS) {
            let fields = self.decoder.decode(&std::mem::take(&mut self.block));
            self.answer(frame.id).blocks.push(fields);
        }
    }

    pub fn answer(&mut self, id: u32) -> &mut Answer {
        self.answers.entry(id).or_default()
    }

    /// Reads until the answer on this stream is over; none: tollgate has closed before.
    pub fn whole_answer(&mut self, id: u32) -> Option<Answer> {
        self.answer_within(id, PATIENCE).expect("an answer or the end within the patience")
    }

    /// The same, and `Err` when tollgate says nothing for so long.
    pub fn answer_within(
        &mut self,
        id: u32,
        patience: Duration,
    ) -> Result<Option<Answer>, ErrorKind> {
        while !self.answer(id).is_over() {
            if self.frame_within(patience)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(self.answer(id).clone()))
    }

    /// Opens a stream with these headers, which is not its end.
    pub fn call(&mut self, path: &str) -> u32 {
        let id = self.stream();
        self.send(&raw(HEADERS, END_HEADERS, id, &head(path)));
        id
    }

    /// Sends a message of a call, and the end of it.
    pub fn finish(&mut self, id: u32, message: &[u8]) {
        for (at, part) in message.chunks(16_384).enumerate() {
            let last = (at + 1) * 16_384 >= message.len();
            self.send(&raw(DATA, if last { END_STREAM } else { 0 }, id, part));
        }
    }

    /// Reads until tollgate has answered a PING, so has read all that was sent before; false: it
    /// has closed.
    pub fn is_read(&mut self) -> bool {
        self.send(&raw(PING, 0, 0, b"are-read"));
        while let Some(frame) = self.frame() {
            if frame.kind == PING && frame.has(ACK) {
                return true;
            }
        }
        false
    }
}
