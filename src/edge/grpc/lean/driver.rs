//! The task of a connection: bytes of its socket to calls, and answers to bytes.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::calls::Calls;
use super::head::CallHead;
use super::timers::{Due, Timers};
use crate::edge::grpc::caller::Caller;
use crate::edge::listener::Bounds;
use crate::edge::listener::acceptor::Permit;
use crate::edge::listener::connection::{Ended, Engine, limits};
use crate::edge::listener::stream::Stream;
use crate::http2::Connection;
use crate::http2::frame::{HEADER_BYTES, MAX_PAYLOAD, PREFACE};
use crate::store::LimitStore;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes that wait to be written; with more nothing is read, as answers would only add to them.
const WRITE_BYTES: usize = 256 << 10;

/// Buffers that are in use only while a connection is polled, so that one that is idle has none.
#[derive(Default)]
struct Buffers {
    read: Vec<u8>,
    write: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// The task of one connection.
#[derive(Debug)]
pub(super) struct Driver<S> {
    stream: Stream,
    http2: Connection<CallHead>,
    calls: Calls<S>,
    timers: Timers,
    /// The bytes of a frame that is not whole.
    rest: Vec<u8>,
    /// Bytes of the output that are written.
    written: usize,
    has_preface: bool,
    /// The end, once the output is written.
    ending: Option<Ended>,
}

impl<S: LimitStore> Driver<S> {
    pub(super) fn new(
        stream: Stream,
        bounds: &Bounds,
        caller: Arc<Caller<S>>,
        permit: &Permit,
    ) -> Self {
        let keepalive = (bounds.keepalive_interval, bounds.keepalive_timeout);
        Self {
            stream,
            http2: Connection::new(limits(bounds, permit)),
            calls: Calls::new(caller, permit.streams()),
            timers: Timers::new(keepalive, bounds.listener.message_timeout, Instant::now()),
            rest: Vec::new(),
            written: 0,
            has_preface: false,
            ending: None,
        }
    }

    /// Does what can be done; ready: the connection has ended.
    fn step(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Ended>> {
        loop {
            if self.ending.is_none() {
                self.calls.advance(&mut self.http2, cx);
            }
            let flushed = self.write(cx)?.is_ready();
            if flushed {
                self.calls.written(&mut self.http2);
            }
            if let Some(ended) = &self.ending {
                if !flushed {
                    return Poll::Pending;
                }
                let ended = ended.clone();
                let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
                return Poll::Ready(Ok(ended));
            }
            if self.http2.is_done() && self.calls.is_empty() {
                self.ending = Some(Ended::Closed);
                continue;
            }
            if self.http2.output().len() > WRITE_BYTES {
                return Poll::Pending;
            }
            if self.look_at_clock(cx) || self.read(cx, buffer)?.is_ready() {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Writes the output; ready: all of it.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let output = self.http2.output();
        while let Some(left) = output.get(self.written..)
            && !left.is_empty()
        {
            match Pin::new(&mut self.stream).poll_write(cx, left)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => self.written += count,
                Poll::Pending => {
                    output.drain(..mem::take(&mut self.written));
                    return Ok(Poll::Pending);
                }
            }
        }
        output.clear();
        self.written = 0;
        Ok(match Pin::new(&mut self.stream).poll_flush(cx)? {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
    }

    /// Reads and handles what the peer has sent; ready: there was something, or its end.
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> io::Result<Poll<()>> {
        let known = self.rest.len();
        buffer.get_mut(..known).into_iter().for_each(|start| start.copy_from_slice(&self.rest));
        let mut room = ReadBuf::new(buffer.get_mut(known..).unwrap_or_default());
        if Pin::new(&mut self.stream).poll_read(cx, &mut room)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let count = room.filled().len();
        if count == 0 {
            self.ending = Some(Ended::Closed);
            return Ok(Poll::Ready(()));
        }
        self.handle(buffer.get(..known + count).unwrap_or_default());
        Ok(Poll::Ready(()))
    }

    fn handle(&mut self, mut input: &[u8]) {
        let now = Instant::now();
        self.timers.read(now);
        if !self.has_preface {
            match input.split_at_checked(PREFACE.len()) {
                Some((preface, rest)) if preface == PREFACE => input = rest,
                Some(_) => {
                    self.ending = Some(Ended::broken("the first bytes are another protocol's"));
                    return;
                }
                None => {
                    self.rest.clear();
                    return self.rest.extend_from_slice(input);
                }
            }
            self.has_preface = true;
        }
        self.http2.begin_turn();
        loop {
            match self.http2.next(&mut input) {
                Ok(Some(event)) => {
                    self.calls.handle(&mut self.http2, event, &mut self.timers, now);
                }
                Ok(None) => break,
                Err(fault) => {
                    self.ending = Some(Ended::broken(fault.reason));
                    return;
                }
            }
        }
        self.rest.clear();
        self.rest.extend_from_slice(input);
        if !self.calls.is_empty() {
            self.calls.wake_bodies(&mut self.http2);
        }
    }

    /// True if the time has come for something.
    fn look_at_clock(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(due) = self.timers.poll(cx) else { return false };
        match due {
            Due::Ping => self.http2.ping_peer(),
            Due::Silent => self.ending = Some(Ended::silent()),
            Due::Messages(before) => {
                self.calls.expire(&mut self.http2, before, &mut self.timers);
            }
        }
        true
    }
}

impl<S: LimitStore> Future for Driver<S> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let driver = self.get_mut();
        let mut buffers = BUFFERS.take();
        // A frame that is not whole is smaller than the largest one.
        buffers.read.resize(READ_BYTES + HEADER_BYTES + MAX_PAYLOAD, 0);
        let output = driver.http2.output();
        if output.is_empty() {
            mem::swap(output, &mut buffers.write);
        }
        let polled = driver.step(cx, &mut buffers.read);
        if driver.http2.output().is_empty() {
            mem::swap(driver.http2.output(), &mut buffers.write);
            BUFFERS.set(buffers);
        } else {
            BUFFERS.set(Buffers { read: buffers.read, write: Vec::new() });
        }
        if driver.rest.is_empty() {
            driver.rest = Vec::new();
        }
        polled.map(|ended| ended.unwrap_or_else(|error| Ended::Failed(error.to_string())))
    }
}

impl<S: LimitStore> Engine for Driver<S> {
    fn shut_down(self: Pin<&mut Self>) {
        self.get_mut().http2.go_away();
    }
}
