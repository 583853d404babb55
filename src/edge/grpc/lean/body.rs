//! The body of a request that is not a decision: its service reads it as it comes.
//!
//! The windows of its stream bound what waits here: they are updated once the service has read it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame};
use parking_lot::Mutex;
use tonic::Status;

/// The bodies of a connection, and the bytes of them that were read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Streams, and bytes since they were last asked for.
    bytes: Mutex<Vec<(u32, usize)>>,
    task: AtomicWaker,
}

/// The end of a body that the connection has.
#[derive(Debug)]
pub(super) struct Sender(Arc<Mutex<Shared>>);

/// The end of a body that the service has.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: u32,
    shared: Arc<Mutex<Shared>>,
    reads: Arc<Reads>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: VecDeque<Bytes>,
    state: State,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Open,
    Ended,
    Reset,
}

impl Reads {
    /// Takes the bytes that were read. `cx` is woken when there are more.
    pub(super) fn take(&self, cx: &Context<'_>) -> Vec<(u32, usize)> {
        self.task.register(cx.waker());
        std::mem::take(&mut *self.bytes.lock())
    }
}

/// The body of `stream`.
pub(super) fn channel(stream: u32, reads: &Arc<Reads>) -> (Sender, Receiver) {
    let shared = Arc::<Mutex<Shared>>::default();
    let receiver = Receiver { stream, shared: Arc::clone(&shared), reads: Arc::clone(reads) };
    (Sender(shared), receiver)
}

impl Sender {
    /// Passes bytes on; `end`: they are the last.
    pub(super) fn send(&self, bytes: &[u8], end: bool) {
        let mut shared = self.0.lock();
        if !bytes.is_empty() {
            shared.waiting.push_back(Bytes::copy_from_slice(bytes));
        }
        if end {
            shared.state = State::Ended;
        }
        let reader = shared.reader.take();
        drop(shared);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        if shared.state == State::Open {
            shared.state = State::Reset;
        }
        let reader = shared.reader.take();
        drop(shared);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Body for Receiver {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut shared = self.shared.lock();
        if let Some(bytes) = shared.waiting.pop_front() {
            drop(shared);
            self.reads.bytes.lock().push((self.stream, bytes.len()));
            self.reads.task.wake();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match shared.state {
            State::Open => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended => Poll::Ready(None),
            State::Reset => {
                Poll::Ready(Some(Err(Status::cancelled("the caller has given the call up"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        shared.state == State::Ended && shared.waiting.is_empty()
    }
}
