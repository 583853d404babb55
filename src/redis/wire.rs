//! The socket of a connection with its write buffer and its decoder.
//!
//! `resp.rs` defines the protocol; `connect.rs` opens the socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Line;
use super::login::Login;
use super::resp::{Decoder, Malformed, Message};
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
    line: Arc<Line>,
    /// True once `exchange` may return for changed credentials.
    is_logged_in: bool,
    pub(super) is_tls: bool,
}

impl Wire {
    pub(super) fn new(socket: Box<dyn Socket>, line: Arc<Line>, is_tls: bool) -> Self {
        Self {
            socket: Box::into_pin(socket),
            output: Vec::new(),
            written: 0,
            replies: Decoder::default(),
            read: vec![0; READ_BYTES].into(),
            line,
            is_logged_in: false,
            is_tls,
        }
    }

    /// Notes that the log-in is done.
    pub(super) const fn set_logged_in(&mut self) {
        self.is_logged_in = true;
    }

    /// The login to send again, after user or password have changed.
    pub(crate) fn new_login(&self) -> Option<Arc<Login>> {
        self.line.new_login()
    }

    /// Returns the next complete reply; `None` if more bytes are needed.
    ///
    /// # Errors
    /// Fails on anything but a supported reply. The bytes after it cannot be decoded.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Message>, Malformed> {
        let reply = self.replies.decode()?;
        if let Some(Message::Error(error)) = &reply {
            self.line.note_refusal(error);
        }
        Ok(reply)
    }

    /// Writes the pending commands. Returns when bytes have been read into `replies`, or when the
    /// connection must log in again: see `new_login`.
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub(crate) async fn exchange(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            // Always do both: the peer may not read before we read.
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            match self.poll_read(cx) {
                Poll::Pending if self.is_logged_in && self.line.is_due() => Poll::Ready(Ok(())),
                read => read,
            }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::redis::address::Address;
    use crate::redis::line::{Lines, Renewal};

    #[tokio::test]
    async fn exchange_returns_for_a_new_login_once_it_is_logged_in() {
        let lines = Lines::default();
        let line = lines.add(Address::Unix("/s".into()), Renewal::LogIn, Arc::default());
        let (stream, _other) = tokio::io::duplex(64);
        let mut wire = Wire::new(Box::new(stream), line, false);
        let login = Arc::new(Login { password: Some("new".to_owned()), ..Login::default() });
        lines.renew(&login);
        assert!(wire.exchange().now_or_never().is_none(), "the log-in waits for its reply");
        wire.set_logged_in();
        wire.exchange().await.unwrap();
        assert_eq!(wire.new_login(), Some(login));
        assert!(wire.exchange().now_or_never().is_none());
    }
}
