//! The calls of a connection: requests in, answers out.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Context;

use hashbrown::HashMap;
use http::Request;
use tokio::time::Instant;
use tonic::Status;

use super::body::{self, Reads, Sender};
use super::head::CallHead;
use super::message::{Message, whole};
use super::reply::{send_body, send_head, send_status};
use super::slots::{Call, Decided, Decisions, Ready, Slots, answer, next_call};
use super::timers::Timers;
use crate::edge::grpc::caller::Caller;
use crate::edge::grpc::head::Head;
use crate::edge::grpc::unary::InvalidMessage;
use crate::http2::{Connection, Event};
use crate::limiter::holds::Issued;
use crate::store::LimitStore;
use crate::telemetry::sharded::{Counted, ShardedGauge};

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls<S> {
    caller: Arc<Caller<S>>,
    /// The calls that are not answered. Most never get here.
    open: HashMap<u32, Open>,
    slots: Slots,
    reads: Arc<Reads>,
    in_progress: ShardedGauge,
    /// The holds of answers that are not written, by stream.
    unheard: Vec<(u32, Arc<Issued>)>,
}

/// A call that is not answered.
#[derive(Debug)]
struct Open {
    state: State,
    /// Counts it among the calls in progress.
    #[expect(dead_code, reason = "held until the call ends")]
    counted: Counted,
}

#[derive(Debug)]
enum State {
    /// Its message is not whole.
    Arriving(Box<Message>),
    /// It waits for its decision.
    Deciding(usize),
    /// It is another service's; the sender of its body, unless that has ended.
    Other(usize, Option<Sender>),
}

impl<S: LimitStore> Calls<S> {
    pub(super) fn new(caller: Arc<Caller<S>>, in_progress: ShardedGauge) -> Self {
        let decider = Arc::clone(&caller);
        let slots = Slots::new(move || -> Decisions { Box::pin(decide(Arc::clone(&decider))) });
        let (open, unheard, reads) = (HashMap::new(), Vec::new(), Arc::default());
        Self { caller, open, slots, reads, in_progress, unheard }
    }

    /// True if no call waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Handles what the peer has sent.
    pub(super) fn handle(
        &mut self,
        http2: &mut Connection<CallHead>,
        event: Event<'_, CallHead>,
        timers: &mut Timers,
        now: Instant,
    ) {
        match event {
            Event::Request { stream, head, body } if head.decides => {
                self.decide_whole(http2, (stream, &head), body, timers, now);
            }
            Event::Request { stream, head, body } => self.call(stream, &head, body),
            Event::Data { stream, bytes, end } => {
                self.data(http2, (stream, bytes, end), timers, now);
            }
            Event::Reset { stream } => {
                // The caller does not know what is held for it.
                self.unheard.retain(|(unheard, _)| *unheard != stream);
                self.drop_call(stream);
            }
        }
    }

    /// Begins a call for a decision, and decides if its message is there.
    fn decide_whole(
        &mut self,
        http2: &mut Connection<CallHead>,
        (stream, head): (u32, &CallHead),
        body: Option<&[u8]>,
        timers: &mut Timers,
        now: Instant,
    ) {
        let mut of_call = self.caller.edge.rls.head(head.terms, &head.parts.headers);
        if let Err(status) = of_call.readable() {
            return send_status(http2, stream, status);
        }
        let Some(body) = body else {
            timers.message(now);
            let message = Box::new(Message::new(of_call, now));
            return self.keep(stream, State::Arriving(message));
        };
        match whole(body, self.caller.edge.message_bytes) {
            Ok(message) => {
                self.decide(http2, stream, Call { head: of_call, message, held: None, now });
            }
            Err(invalid) => self.refuse(http2, stream, of_call, invalid),
        }
    }

    fn decide(&mut self, http2: &mut Connection<CallHead>, stream: u32, call: Call) {
        match self.slots.decide(stream, call) {
            Ok(decided) => send(http2, stream, decided, &mut self.unheard),
            Err(slot) => self.keep(stream, State::Deciding(slot)),
        }
    }

    fn refuse(
        &mut self,
        http2: &mut Connection<CallHead>,
        stream: u32,
        mut head: Head,
        invalid: InvalidMessage,
    ) {
        let decided = match invalid {
            InvalidMessage::TooLarge => self.caller.edge.rls.too_large(head, &self.caller.memory),
            InvalidMessage::Refused(status) => Err(head.refuse("no message", status)),
        };
        send(http2, stream, decided, &mut self.unheard);
    }

    /// Begins a call of another service.
    fn call(&mut self, stream: u32, head: &CallHead, body: Option<&[u8]>) {
        let (sender, receiver) = body::channel(stream, &self.reads);
        let mut sender = Some(sender);
        if let Some(body) = body {
            sender.take().into_iter().for_each(|sender| sender.send(body, true));
        }
        let request = Request::from_parts(head.parts.clone(), receiver);
        let slot = self.slots.call(stream, Arc::clone(&self.caller).other(request));
        self.keep(stream, State::Other(slot, sender));
    }

    fn keep(&mut self, stream: u32, state: State) {
        let counted = self.in_progress.hold();
        self.open.insert(stream, Open { state, counted });
    }

    fn data(
        &mut self,
        http2: &mut Connection<CallHead>,
        (stream, bytes, end): (u32, &[u8], bool),
        timers: &mut Timers,
        now: Instant,
    ) {
        let Some(open) = self.open.get_mut(&stream) else {
            return http2.release(stream, bytes.len());
        };
        match &mut open.state {
            State::Deciding(_) => http2.release(stream, bytes.len()),
            State::Other(_, sender) => {
                if let Some(open) = sender {
                    open.send(bytes, end);
                }
                if end {
                    *sender = None;
                }
            }
            State::Arriving(message) => {
                http2.release(stream, bytes.len());
                let bounds = (self.caller.edge.message_bytes, &self.caller.memory);
                let added = message.add(bytes, end, bounds);
                if matches!(added, Ok(None)) {
                    return;
                }
                let head = self.arrived(stream, timers);
                match (added, head) {
                    (Ok(Some((message, held))), Some(head)) => {
                        self.decide(http2, stream, Call { head, message, held, now });
                    }
                    (Err(invalid), Some(head)) => self.refuse(http2, stream, head, invalid),
                    _ => {}
                }
            }
        }
    }

    /// Takes out a call whose message has arrived, or has not.
    fn arrived(&mut self, stream: u32, timers: &mut Timers) -> Option<Head> {
        let open = self.open.remove(&stream)?;
        if self.open.is_empty() {
            timers.no_message();
        }
        match open.state {
            State::Arriving(message) => Some(message.head),
            State::Deciding(_) | State::Other(..) => None,
        }
    }

    /// Refuses calls whose messages have not arrived since `before`.
    pub(super) fn expire(
        &mut self,
        http2: &mut Connection<CallHead>,
        before: Instant,
        timers: &mut Timers,
    ) {
        let late = |(id, open): (&u32, &Open)| match &open.state {
            State::Arriving(message) => (message.since <= before).then_some(*id),
            State::Deciding(_) | State::Other(..) => None,
        };
        let late: Vec<u32> = self.open.iter().filter_map(late).collect();
        let timeout = self.caller.edge.message_timeout;
        for stream in late {
            if let Some(head) = self.arrived(stream, timers) {
                let text = format!("the message did not arrive in {timeout:?}");
                let status = Status::deadline_exceeded(text);
                self.refuse(http2, stream, head, InvalidMessage::Refused(status));
            }
        }
        let arriving = |open: &Open| matches!(open.state, State::Arriving(_));
        if !self.open.values().any(arriving) {
            timers.no_message();
        }
    }

    fn drop_call(&mut self, stream: u32) {
        if let Some(open) = self.open.remove(&stream) {
            match open.state {
                State::Arriving(_) => {}
                State::Deciding(slot) | State::Other(slot, _) => self.slots.free(slot),
            }
        }
    }

    /// Sends the answers that have become ready. `cx` is woken when there are more.
    pub(super) fn advance(&mut self, http2: &mut Connection<CallHead>, cx: &Context<'_>) {
        for (stream, bytes) in self.reads.take(cx) {
            http2.release(stream, bytes);
        }
        let mut ended = Vec::new();
        let Self { open, slots, unheard, .. } = self;
        slots.poll(cx, |ready| match ready {
            Ready::Decided(stream, decided) => {
                open.remove(&stream);
                send(http2, stream, decided, unheard);
            }
            Ready::Head(stream, head, is_whole) => {
                send_head(http2, stream, &head, is_whole);
                if is_whole {
                    ended.push(stream);
                }
            }
            Ready::Body(stream, body, waker) => {
                if send_body(http2, stream, body, waker) {
                    ended.push(stream);
                }
            }
        });
        for stream in ended {
            self.drop_call(stream);
        }
    }

    /// The output is written: callers know what is held for them, unless a part of the answer waits
    /// for a window.
    pub(super) fn written(&mut self, http2: &mut Connection<CallHead>) {
        self.unheard.retain(|(stream, hold)| {
            let waits = http2.is_open(*stream);
            if !waits {
                hold.heard();
            }
            waits
        });
    }

    /// Goes on with answers that waited for the peer, who has sent something.
    pub(super) fn wake_bodies(&self, http2: &mut Connection<CallHead>) {
        for (stream, open) in &self.open {
            if let State::Other(slot, _) = &open.state
                && http2.takes_data(*stream)
            {
                self.slots.wake(*slot);
            }
        }
    }
}

/// Decides the calls of a slot, one after the other.
async fn decide<S: LimitStore>(caller: Arc<Caller<S>>) -> Infallible {
    let Caller { edge, askable, memory } = &*caller;
    loop {
        let Call { head, message, held: _held, now } = next_call().await;
        answer(edge.rls.decide(head, &message, now, askable.as_deref(), memory).await);
    }
}

/// Sends the answer to a decision.
fn send(
    http2: &mut Connection<CallHead>,
    stream: u32,
    decided: Decided,
    unheard: &mut Vec<(u32, Arc<Issued>)>,
) {
    match decided {
        Ok(answer) => {
            if http2.send_grpc(stream, &answer.frame)
                && let Some(hold) = answer.hold
            {
                unheard.push((stream, hold));
            }
        }
        Err(status) => send_status(http2, stream, status),
    }
}
