//! A session and its socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tollgate::http2::frame::MAX_PAYLOAD;

use super::session::{End, Session};
use super::{Fault, Target};

/// Bytes of a read; more than a whole frame.
const READ_BYTES: usize = 8 * MAX_PAYLOAD;
/// Time for a connection, TLS and the peer's SETTINGS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream of bytes.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// An open connection. `T` is what the caller keeps with a call.
pub(crate) struct Line<T> {
    socket: Box<dyn Socket>,
    session: Session<T>,
    input: Box<[u8]>,
    /// Bytes of `input` that wait for the rest of their frame.
    filled: usize,
}

impl<T> Line<T> {
    /// Connects, for `most` calls at a time. The peer has begun when it returns.
    ///
    /// # Errors
    /// Fails with the reason if the service cannot be reached or does not speak HTTP/2.
    pub(crate) async fn connect(target: &Target, most: usize) -> Result<Self, Fault> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Self::connect_at_last(target, most));
        connected.await.unwrap_or_else(|_| Err(Fault::Socket("no connection in time".to_owned())))
    }

    async fn connect_at_last(target: &Target, most: usize) -> Result<Self, Fault> {
        let mut line = Self {
            socket: target.connect().await?,
            session: Session::new(target.requests(), most),
            input: vec![0; READ_BYTES].into_boxed_slice(),
            filled: 0,
        };
        while !line.session.is_ready() {
            line.turn(&mut |_, _| {}).await?;
        }
        Ok(line)
    }

    pub(crate) const fn session(&mut self) -> &mut Session<T> {
        &mut self.session
    }

    /// Writes what waits, reads what has come, and gives calls that end to `ended`.
    ///
    /// # Cancel safety
    /// No bytes are lost if it is dropped.
    ///
    /// # Errors
    /// Fails if the connection cannot be used any more.
    pub(crate) async fn turn(&mut self, ended: &mut impl FnMut(T, End<'_>)) -> Result<(), Fault> {
        let read = std::future::poll_fn(|context| self.poll(context)).await;
        let read = read.map_err(|error| Fault::Socket(error.to_string()))?;
        if read == 0 {
            return Err(Fault::Socket("the service closed the connection".to_owned()));
        }
        let filled = self.filled + read;
        let input = self.input.get(..filled).unwrap_or_default();
        let taken = self.session.receive(input, ended)?;
        self.input.copy_within(taken..filled, 0);
        self.filled = filled - taken;
        Ok(())
    }

    /// Reads at least a byte; returns how many.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_out(context) {
            return Poll::Ready(Err(error));
        }
        let mut buffer = ReadBuf::new(self.input.get_mut(self.filled..).unwrap_or_default());
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = self.session.out();
        while !out.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(context, out))?;
            out.drain(..written);
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }
}
