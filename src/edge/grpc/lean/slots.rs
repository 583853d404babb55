//! The calls of a connection that wait for something, each in a slot that is used again.
//!
//! A slot keeps its allocation and its waker, so a call that waits costs none of either. Wakers
//! note the slots to be polled and wake the task of the connection.

use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use http::Response;
use http::response::Parts;
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio_util::sync::ReusableBoxFuture;
use tonic::Status;
use tonic::body::Body;

use crate::edge::grpc::unary::Framed;

/// The calls of a connection that wait.
#[derive(Debug)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// Taken out of [`Woken`] to be polled.
    due: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    stream: u32,
    work: Work,
    /// The last decision, which is over unless `work` says otherwise.
    decision: Option<ReusableBoxFuture<'static, Decided>>,
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

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Decision => "Decision",
            Self::Other(_) => "Other",
            Self::Body(_) => "Body",
        })
    }
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
            self.woken.slots.lock().push(self.index);
            self.woken.task.wake();
        }
    }
}

impl Slots {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), free: Vec::new(), woken: Arc::default(), due: Vec::new() }
    }

    /// Polls a decision. One that waits gets a slot.
    pub(super) fn decide(
        &mut self,
        stream: u32,
        decision: impl Future<Output = Decided> + Send + 'static,
    ) -> Result<Decided, usize> {
        let index = self.take(stream);
        let Some(slot) = self.all.get_mut(index) else { return Err(index) };
        match &mut slot.decision {
            Some(reused) => reused.set(decision),
            none => *none = Some(ReusableBoxFuture::new(decision)),
        }
        slot.work = Work::Decision;
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
            Work::Decision => slot.decision = None,
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
        let Some(decision) = &mut slot.decision else { return Poll::Pending };
        let polled = decision.poll(&mut Context::from_waker(&slot.waker));
        if polled.is_ready() {
            slot.work = Work::None;
            self.free.push(index);
        }
        polled
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
        self.all.push(Slot { stream, work, decision: None, waker, queued });
        index
    }
}
