//! The open connections of a connector, and what must reach them: that they are to end, because
//! the primary has moved, or are to log in again, because user or password have changed.
//!
//! A connection reads its own flags only, so no decision touches what other connections write.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::address::Address;
use super::login::Login;
use super::refusal::Refusals;
use super::tls::explain;

/// The answer of a connection to changed credentials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Renewal {
    /// It logs in again.
    LogIn,
    /// It ends: in a subscription, Redis takes no log-in.
    Reconnect,
}

/// One connection.
pub(crate) struct Line {
    address: Address,
    renewal: Renewal,
    refusals: Arc<Refusals>,
    /// The reason why it must end.
    ended: OnceLock<String>,
    /// True while `login` is to be sent.
    is_due: AtomicBool,
    login: Mutex<Option<Arc<Login>>>,
    /// The task that reads.
    reader: AtomicWaker,
}

impl Line {
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// True if the connection must log in again.
    pub(super) fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Acquire)
    }

    /// The login to send again, once.
    pub(crate) fn new_login(&self) -> Option<Arc<Login>> {
        if !self.is_due() {
            return None;
        }
        self.is_due.store(false, Ordering::Release);
        self.login.lock().take()
    }

    /// Notes an error that Redis answered on this connection.
    pub(crate) fn note_refusal(&self, error: &str) {
        self.refusals.note(error);
    }

    fn end(&self, reason: &str) {
        let _ = self.ended.set(reason.to_owned());
        self.reader.wake();
    }

    fn renew(&self, login: &Arc<Login>) {
        match self.renewal {
            Renewal::Reconnect => self.end("user or password have changed"),
            Renewal::LogIn => {
                *self.login.lock() = Some(Arc::clone(login));
                self.is_due.store(true, Ordering::Release);
                self.reader.wake();
            }
        }
    }
}

/// The open connections of a connector.
#[derive(Default)]
pub(super) struct Lines(Mutex<Vec<Weak<Line>>>);

impl Lines {
    /// Notes a connection to `address` before it is opened.
    pub(super) fn add(
        &self,
        address: Address,
        renewal: Renewal,
        refusals: Arc<Refusals>,
    ) -> Arc<Line> {
        let line = Arc::new(Line {
            address,
            renewal,
            refusals,
            ended: OnceLock::new(),
            is_due: AtomicBool::new(false),
            login: Mutex::new(None),
            reader: AtomicWaker::new(),
        });
        let mut lines = self.0.lock();
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        line
    }

    /// Ends every connection to another server than `primary`.
    pub(super) fn end_all_but(&self, primary: &Address, reason: &str) {
        self.for_each(|line| {
            if line.address != *primary {
                line.end(reason);
            }
        });
    }

    /// Lets every connection log in again.
    pub(super) fn renew(&self, login: &Arc<Login>) {
        self.for_each(|line| line.renew(login));
    }

    fn for_each(&self, mut act: impl FnMut(&Line)) {
        self.0.lock().iter().filter_map(Weak::upgrade).for_each(|line| act(&line));
    }
}

/// A byte stream that ends when its line does, and whose errors have a hint.
pub(super) struct Tracked<S> {
    stream: S,
    line: Arc<Line>,
}

impl<S> Tracked<S> {
    pub(super) const fn new(stream: S, line: Arc<Line>) -> Self {
        Self { stream, line }
    }

    fn check(&self) -> io::Result<()> {
        self.line.ended.get().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        match Pin::new(&mut self.stream).poll_read(cx, into) {
            Poll::Pending => {
                self.line.reader.register(cx.waker());
                // It may have ended between the first check and the registration.
                self.check()?;
                Poll::Pending
            }
            Poll::Ready(read) => Poll::Ready(read.map_err(explain)),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes).map_err(explain)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(explain)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn tracked(lines: &Lines, port: u16, renewal: Renewal) -> Tracked<tokio::io::DuplexStream> {
        let line = lines.add(Address::Tcp("h".to_owned(), port), renewal, Arc::default());
        // The task keeps the other end open and silent.
        let (stream, other) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let _open = other;
            std::future::pending::<()>().await;
        });
        Tracked::new(stream, line)
    }

    #[tokio::test]
    async fn connections_to_the_old_primary_end_while_they_wait() {
        let lines = Lines::default();
        let mut old = tracked(&lines, 1, Renewal::LogIn);
        let mut new = tracked(&lines, 2, Renewal::LogIn);
        let waiting = tokio::spawn(async move { old.read_u8().await });
        tokio::task::yield_now().await;
        lines.end_all_but(&Address::Tcp("h".to_owned(), 2), "it has moved");
        assert_eq!(waiting.await.unwrap().unwrap_err().to_string(), "it has moved");
        assert!(new.read_u8().now_or_never().is_none());
    }

    #[tokio::test]
    async fn new_login_is_due_once_or_ends_a_subscription() {
        let lines = Lines::default();
        let caller = tracked(&lines, 1, Renewal::LogIn);
        let mut subscriber = tracked(&lines, 1, Renewal::Reconnect);
        assert_eq!(caller.line.new_login(), None);
        let login = Arc::new(Login { password: Some("new".to_owned()), ..Login::default() });
        lines.renew(&login);
        assert_eq!(caller.line.new_login(), Some(login));
        assert_eq!(caller.line.new_login(), None);
        let ended = subscriber.read_u8().await.unwrap_err().to_string();
        assert_eq!(ended, "user or password have changed");
    }
}
