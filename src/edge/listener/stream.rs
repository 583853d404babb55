//! The bytes of a connection, in clear or over TLS, and its first ones before they are served.

use std::io;
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use super::stalled::Stalled;
use crate::http2::frame::PREFACE;

/// The reads of a connection in a row. After that it goes to the end of the queue of its core: a
/// peer that always has more to read, such as a flood of PING, would otherwise have the core for
/// as long as tokio lets a task run, tens of milliseconds.
const READS_IN_A_ROW: u8 = 2;

/// The first byte of every TLS connection: a record of the handshake. No request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that belongs to no runtime.
#[derive(Debug)]
pub(super) enum Detached {
    Plain(StdStream),
    Tls(Box<TlsStream<Socket>>, StdStream),
}

impl Detached {
    /// Takes the connection from the runtime that calls this.
    pub(super) fn of_tls(mut stream: Box<TlsStream<Socket>>) -> io::Result<Self> {
        let socket = stream.get_mut().0.take()?;
        Ok(Self::Tls(stream, socket))
    }

    /// Registers the connection, whose writes `stalled` watches, with the runtime that calls this.
    pub(super) fn attach(self, stalled: Stalled) -> io::Result<Stream> {
        let kind = match self {
            Self::Plain(socket) => Kind::Plain(TcpStream::from_std(socket)?),
            Self::Tls(mut stream, socket) => {
                stream.get_mut().0.put(socket)?;
                Kind::Tls(stream)
            }
        };
        Ok(Stream { kind, stalled, reads: 0, begun: [0; PREFACE.len()], read: 0, replayed: 0 })
    }
}

/// A connection of this runtime.
#[derive(Debug)]
pub(in crate::edge) struct Stream {
    kind: Kind,
    stalled: Stalled,
    /// The reads since the last one that found nothing.
    reads: u8,
    /// The first bytes, if [`Self::begin`] has read them.
    begun: [u8; PREFACE.len()],
    read: usize,
    replayed: usize,
}

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<Socket>>),
}

/// The first bytes of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Beginning {
    /// A request may follow.
    Request,
    /// TLS where none is served.
    UnexpectedTls,
    /// Nothing: the peer has closed the connection.
    End,
}

impl Stream {
    /// Waits until the peer has sent `expected`, or bytes that differ from it. All of them are
    /// read again by whoever reads next.
    pub(super) async fn begin(&mut self, expected: &[u8]) -> io::Result<Beginning> {
        while expected.starts_with(self.begun())
            && let Some(room) = self.begun.get_mut(self.read..expected.len().max(1))
            && !room.is_empty()
        {
            let more = match &mut self.kind {
                Kind::Plain(stream) => stream.read(room).await?,
                Kind::Tls(stream) => stream.read(room).await?,
            };
            if more == 0 {
                return Ok(Beginning::End);
            }
            self.read += more;
        }
        let plain = matches!(self.kind, Kind::Plain(_));
        let tls = plain && self.begun().first() == Some(&TLS_HANDSHAKE);
        Ok(if tls { Beginning::UnexpectedTls } else { Beginning::Request })
    }

    fn begun(&self) -> &[u8] {
        self.begun.get(..self.read).unwrap_or_default()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(left) = this.begun.get(this.replayed..this.read)
            && !left.is_empty()
        {
            let some = left.get(..buffer.remaining()).unwrap_or(left);
            buffer.put_slice(some);
            this.replayed += some.len();
            return Poll::Ready(Ok(()));
        }
        if this.reads == READS_IN_A_ROW {
            this.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = match &mut this.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        this.reads = if read.is_ready() { this.reads + 1 } else { 0 };
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        this.stalled.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Kind::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        };
        this.stalled.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        this.stalled.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = match &mut this.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        this.stalled.watch(cx, shut)
    }
}
