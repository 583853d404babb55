//! A socket that is lent: whoever borrows it owns a handle, and the lender gets the socket back once that is dropped.
//!
//! The client library knows how to log in and keeps its socket for good; this is how the store gets it back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Socket;

/// What the lender keeps.
pub(crate) struct Lent(Arc<Mutex<Box<dyn Socket>>>);

/// What the borrower reads from and writes to.
pub(crate) struct Borrowed(Arc<Mutex<Box<dyn Socket>>>);

/// Lends `socket`.
pub(crate) fn lend(socket: Box<dyn Socket>) -> (Lent, Borrowed) {
    let shared = Arc::new(Mutex::new(socket));
    (Lent(Arc::clone(&shared)), Borrowed(shared))
}

impl Lent {
    /// The socket, unless the borrower still has it.
    pub(crate) fn take_back(self) -> Option<Box<dyn Socket>> {
        Arc::into_inner(self.0).map(Mutex::into_inner)
    }
}

impl AsyncRead for Borrowed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.0.lock()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Borrowed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.0.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.0.lock()).poll_shutdown(cx)
    }
}
