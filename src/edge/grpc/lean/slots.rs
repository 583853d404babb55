//! The calls of a connection that wait for something, each in a slot that is used again.
//!
//! A slot keeps its waker, and the future that makes its decisions one after the other, so a call
//! costs no allocation and moves no future. Wakers note the slots to be polled and wake the task of
//! the connection.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use http::Response;
use http::response::Parts;
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::edge::grpc::head::Head;
use crate::edge::grpc::unary::Framed;
use crate::edge::listener::memory::Held;

/// A call to be decided: its head, its message, the memory of that, and the time of its arrival.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) head: Head,
    pub(super) message: Bytes,
    pub(super) held: Option<Held>,
    pub(super) now: Instant,
}

/// The decisions of a slot: takes a [call](next_call), [answers](answer) it, and so on.
pub(super) type Decisions = BoxFuture<'static, Infallible>;

// The way into a future that is polled at once, and out of it: what is handed over is never left
// here between two polls.
thread_local! {
    /// The call that a future is polled with.
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
    /// The answer that it has made.
    static ANSWER: Cell<Option<Decided>> = const { Cell::new(None) };
}

/// The next call of a slot.
pub(super) async fn next_call() -> Call {
    poll_fn(|_| CALL.take().map_or(Poll::Pending, Poll::Ready)).await
}

/// Answers the call of a slot.
pub(super) fn answer(decided: Decided) {
    ANSWER.set(Some(decided));
}

/// The calls of a connection that wait.
pub(super) struct Slots {
    begin: Box<dyn Fn() -> Decisions + Send>,
    all: Vec<Slot>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// Taken out of [`Woken`] to be polled.
    due: Vec<usize>,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("all", &self.all.len()).finish_non_exhaustive()
    }
}

struct Slot {
    stream: u32,
    work: Work,
    /// None: it has made none, or one was given up before its end.
    decisions: Option<Decisions>,
    waker: Waker,
    queued: Arc<SlotWaker>,
}

/// The work of a slot.
enum Work {
    None,
    Decision,
    /// A call of another service, before its answer begins.
    Other(BoxFuture<'static, Response<Body>>),
    /// The rest of that answer.
    Body(Body),
}

/// The answer to a decision.
pub(super) type Decided = Result<Framed, Status>;

/// Something that a slot waited for.
pub(super) enum Ready<'a> {
    /// The answer to a decision. The slot is free.
    Decided(u32, Decided),
    /// The beginning of another answer, whose body the slot keeps; true: that has nothing.
    Head(u32, Box<Parts>, bool),
    /// A body that may have more to send.
    Body(u32, &'a mut Body, &'a Waker),
}

/// The slots to be polled.
#[derive(Debug, Default)]
struct Woken {
    slots: Mutex<Vec<usize>>,
    task: AtomicWaker,
}

#[derive(Debug)]
struct SlotWaker {
    index: usize,
    is_queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let mut slots = self.woken.slots.lock();
            let is_first = slots.is_empty();
            slots.push(self.index);
            drop(slots);
            // The task takes all slots at once, so the others need not look for its waker.
            if is_first {
                self.woken.task.wake();
            }
        }
    }
}

impl Slots {
    /// Slots whose decisions `begin` makes.
    pub(super) fn new(begin: impl Fn() -> Decisions + Send + 'static) -> Self {
        let (all, free, due) = (Vec::new(), Vec::new(), Vec::new());
        Self { begin: Box::new(begin), all, free, woken: Arc::default(), due }
    }

    /// Decides a call. One that waits gets a slot.
    pub(super) fn decide(&mut self, stream: u32, call: Call) -> Result<Decided, usize> {
        let index = self.take(stream);
        let Some(slot) = self.all.get_mut(index) else { return Err(index) };
        if slot.decisions.is_none() {
            slot.decisions = Some((self.begin)());
        }
        slot.work = Work::Decision;
        CALL.set(Some(call));
        match self.poll_decision(index) {
            Poll::Ready(decided) => Ok(decided),
            Poll::Pending => Err(index),
        }
    }

    /// Gives a call of another service a slot, and has it polled.
    pub(super) fn call(&mut self, stream: u32, call: BoxFuture<'static, Response<Body>>) -> usize {
        let index = self.take(stream);
        if let Some(slot) = self.all.get_mut(index) {
            slot.work = Work::Other(call);
            slot.waker.wake_by_ref();
        }
        index
    }

    /// Has a slot polled, as what it waits for is not in its future.
    pub(super) fn wake(&self, index: usize) {
        if let Some(slot) = self.all.get(index) {
            slot.waker.wake_by_ref();
        }
    }

    /// Drops a call, as when its stream is closed.
    pub(super) fn free(&mut self, index: usize) {
        let Some(slot) = self.all.get_mut(index) else { return };
        match mem::replace(&mut slot.work, Work::None) {
            Work::None => return,
            // The future itself, not only the right to poll it.
            Work::Decision => slot.decisions = None,
            Work::Other(_) | Work::Body(_) => {}
        }
        self.free.push(index);
    }

    /// Passes what has become ready to `ready`; a slot whose body has ended is freed by its stream.
    /// `cx` is woken when there is more.
    pub(super) fn poll(&mut self, cx: &Context<'_>, mut ready: impl FnMut(Ready<'_>)) {
        self.woken.task.register(cx.waker());
        let mut due = mem::take(&mut self.due);
        mem::swap(&mut due, &mut *self.woken.slots.lock());
        for index in due.drain(..) {
            self.poll_slot(index, &mut ready);
        }
        self.due = due;
    }

    fn poll_slot(&mut self, index: usize, ready: &mut impl FnMut(Ready<'_>)) {
        let Some(slot) = self.all.get_mut(index) else { return };
        slot.queued.is_queued.store(false, Ordering::Release);
        let stream = slot.stream;
        match &mut slot.work {
            Work::None => {}
            Work::Decision => {
                if let Poll::Ready(decided) = self.poll_decision(index) {
                    ready(Ready::Decided(stream, decided));
                }
            }
            Work::Other(call) => {
                let polled = call.as_mut().poll(&mut Context::from_waker(&slot.waker));
                if let Poll::Ready(response) = polled {
                    let (head, body) = response.into_parts();
                    let is_whole = body.is_end_stream();
                    slot.work = Work::Body(body);
                    ready(Ready::Head(stream, Box::new(head), is_whole));
                    slot.waker.wake_by_ref();
                }
            }
            Work::Body(body) => ready(Ready::Body(stream, body, &slot.waker)),
        }
    }

    fn poll_decision(&mut self, index: usize) -> Poll<Decided> {
        let Some(slot) = self.all.get_mut(index) else { return Poll::Pending };
        let Some(decisions) = &mut slot.decisions else { return Poll::Pending };
        let Poll::Pending = decisions.as_mut().poll(&mut Context::from_waker(&slot.waker));
        match ANSWER.take() {
            Some(decided) => {
                slot.work = Work::None;
                self.free.push(index);
                Poll::Ready(decided)
            }
            None => Poll::Pending,
        }
    }

    fn take(&mut self, stream: u32) -> usize {
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.all.get_mut(index) {
                slot.stream = stream;
            }
            return index;
        }
        let index = self.all.len();
        let (is_queued, woken) = (AtomicBool::new(false), Arc::clone(&self.woken));
        let queued = Arc::new(SlotWaker { index, is_queued, woken });
        let waker = Waker::from(Arc::clone(&queued));
        let work = Work::None;
        self.all.push(Slot { stream, work, decisions: None, waker, queued });
        index
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn task_is_woken_for_every_slot_that_becomes_ready() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut slots = Slots::new(|| pending().boxed());
        let ready = |slots: &mut Slots| {
            let mut streams = Vec::new();
            slots.poll(&Context::from_waker(&waker), |ready| {
                streams.extend(match ready {
                    Ready::Head(stream, ..) => Some(stream),
                    Ready::Decided(..) | Ready::Body(..) => None,
                });
            });
            (streams, task.0.swap(0, Ordering::Relaxed))
        };
        let call = |slots: &mut Slots, stream| {
            slots.call(stream, async { Response::new(Body::empty()) }.boxed());
        };
        assert_eq!(ready(&mut slots), (vec![], 0));
        for stream in [1, 3, 5] {
            call(&mut slots, stream);
        }
        // For the calls together, and for their bodies together.
        assert_eq!(ready(&mut slots), (vec![1, 3, 5], 2));
        assert_eq!(ready(&mut slots), (vec![], 0));
        call(&mut slots, 7);
        assert_eq!(ready(&mut slots), (vec![7], 2));
    }
}
