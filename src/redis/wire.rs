//! The socket of a connection with its write buffer and its decoder.
//!
//! `resp.rs` defines the protocol; `connect.rs` opens the socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::resp::Decoder;
use super::socket::Socket;

/// Size of the read buffer. The reply to a full frame has about 2 kB.
const READ_BYTES: usize = 16 * 1024;

/// A connection of the store.
pub(crate) struct Wire {
    socket: Pin<Box<dyn Socket>>,
    /// Commands that are not yet written.
    pub(crate) output: Vec<u8>,
    written: usize,
    pub(crate) replies: Decoder,
    /// The read buffer.
    read: Box<[u8]>,
}

impl Wire {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket: Box::into_pin(socket),
            output: Vec::new(),
            written: 0,
            replies: Decoder::default(),
            read: vec![0; READ_BYTES].into(),
        }
    }

    /// Writes the pending commands. Returns when bytes have been read into `replies`.
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub(crate) async fn exchange(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            // Always do both: the peer may not read before we read.
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            self.poll_read(cx)
        })
        .await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut read = ReadBuf::new(&mut self.read);
        ready!(AsyncRead::poll_read(self.socket.as_mut(), cx, &mut read))?;
        if read.filled().is_empty() {
            let closed =
                io::Error::new(io::ErrorKind::UnexpectedEof, "Redis closed the connection");
            return Poll::Ready(Err(closed));
        }
        self.replies.feed(read.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match AsyncWrite::poll_write(self.socket.as_mut(), cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.output.clear();
        self.written = 0;
        AsyncWrite::poll_flush(self.socket.as_mut(), cx)
    }
}
