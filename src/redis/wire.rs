//! The socket of a connection: what is to be written, and what was read.
//!
//! What the bytes say is in `resp.rs`, how the connection is made in `connect.rs`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::resp::Decoder;
use super::socket::Socket;

/// How much is read at once, in bytes; a full frame's reply has about 2 kB.
const READ: usize = 16 * 1024;

/// A connection of the store.
pub(crate) struct Wire {
    socket: Pin<Box<dyn Socket>>,
    /// Commands to be written.
    pub(crate) output: Vec<u8>,
    written: usize,
    pub(crate) replies: Decoder,
    /// What the last read brought, on its way to `replies`.
    read: Box<[u8]>,
}

impl Wire {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket: Box::into_pin(socket),
            output: Vec::new(),
            written: 0,
            replies: Decoder::default(),
            read: vec![0; READ].into(),
        }
    }

    /// Writes what is to be written, and returns when something was read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn exchange(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            // Both at all times: a peer that waits for us to read may not read itself.
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
