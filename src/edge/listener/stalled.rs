//! Peers that do not read: the end of a connection whose writes make no progress.
//!
//! The pings of HTTP/2 find such peers later, and those of HTTP/1 not at all.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::refused::{Reason, Refusal, Refusals};

/// The watch over the writes of one connection.
#[derive(Debug)]
pub(super) struct Stalled {
    timeout: Duration,
    peer: SocketAddr,
    refusals: Refusals,
    /// Runs while a write waits for the peer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stalled {
    /// Of `peer`, which has to take some bytes within `timeout`.
    pub(super) const fn new(timeout: Duration, peer: SocketAddr, refusals: Refusals) -> Self {
        Self { timeout, peer, refusals, timer: None }
    }

    /// Passes on how a write went, or that it waits for too long.
    pub(super) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        let text = format!("the peer took no bytes within listeners.write_timeout, {timeout:?}");
        self.refusals.cut(self.peer, &Refusal::new(Reason::SlowReader, text));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}
