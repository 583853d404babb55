//! A peer that writes HTTP/2 frame by frame, and reads only when told.
//!
//! Source: RFC 9113, section 6; RFC 7541, sections 5 and 6.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::runtime::Runtime;

use crate::support::grpc::{SHOULD_RATE_LIMIT, frame};
use crate::support::tollgate::{descriptor, request};

pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// The longest that a peer waits for room to write.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Connects.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
});

/// A connection.
pub struct Peer<S = Socket> {
    pub stream: S,
    next: u32,
}

/// A socket from 127.0.0.`last`, so that one machine has many addresses. Its buffers are small, so
/// that what it does not read stays with tollgate.
pub fn connect(to: SocketAddr, last: u8) -> Socket {
    let stream = RUNTIME.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nodelay(true).unwrap();
    Socket(stream)
}

/// A socket that waits a little for room to write, and not at all for something to read.
pub struct Socket(pub TcpStream);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let late = Instant::now() + WRITE_TIMEOUT;
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < late => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Peer {
    /// From 127.0.0.`last`, with the settings of the protocol.
    pub fn new(to: SocketAddr, last: u8) -> Self {
        Self::over(connect(to, last), &[])
    }
}

impl<S: Read + Write> Peer<S> {
    /// Over `stream`, with these settings.
    pub fn over(stream: S, settings: &[(u16, u32)]) -> Self {
        let mut peer = Self { stream, next: 1 };
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        peer.send(&raw(SETTINGS, 0, 0, &payload));
        peer
    }

    /// The number of a new stream.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Writes, and says if all of it was written: tollgate may read no more, or have closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    /// Reads what is there; false if tollgate has closed.
    pub fn drain(&mut self) -> bool {
        let mut part = [0; 16 << 10];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => {
                    return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
            }
        }
    }

    /// Opens a call of `path`, with `more` headers; the number of its stream.
    pub fn open(&mut self, path: &str, more: &[u8]) -> u32 {
        let id = self.stream();
        let mut block = head(path);
        block.extend(more);
        self.send(&blocks(id, &block, END_HEADERS));
        id
    }
}

/// A frame.
pub fn raw(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block of headers in HEADERS and CONTINUATION; the last frame has `last` flags.
pub fn blocks(id: u32, block: &[u8], last: u8) -> Vec<u8> {
    let (mut frames, count) = (Vec::new(), block.len().div_ceil(16_384));
    for (i, part) in block.chunks(16_384).enumerate() {
        let kind = if i == 0 { HEADERS } else { CONTINUATION };
        frames.extend(raw(kind, if i + 1 == count { last } else { 0 }, id, part));
    }
    frames
}

/// The headers of a call.
pub fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x01x\x0f\x10\x10application/grpc\x00\x02te\x08trailers");
    block
}

/// A header of so many bytes that enters no table.
pub fn long_header(bytes: usize) -> Vec<u8> {
    let mut header = b"\x00\x01y\x7f".to_vec();
    let mut rest = bytes - 127;
    while rest >= 128 {
        header.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    header.push(u8::try_from(rest).unwrap());
    header.extend(std::iter::repeat_n(b'y', bytes));
    header
}

/// The frames of a whole call, whose request has so many descriptors.
pub fn call(id: u32, descriptors: usize) -> Vec<u8> {
    let mut asked = request("d", &[]);
    asked.descriptors = (0..descriptors).map(|_| descriptor(&[("k", "v")])).collect();
    let mut frames = raw(HEADERS, END_HEADERS, id, &head(SHOULD_RATE_LIMIT));
    frames.extend(raw(DATA, END_STREAM, id, &frame(false, &asked.encode_to_vec())));
    frames
}
