//! The queue of calls to be sent, the answers to their callers, and the alarm: the earliest
//! deadline of any call, queued or in flight.
//!
//! Many producers, one consumer: the batch task. The queue does not know the connection.
//!
//! * `shared`: the calls and the answers, under one lock.
//! * `answers`: the cells in which callers find their answers.
//! * `waiter`: the deadline of a caller, and the way to answer it.
//! * `taken`: the calls of a frame.

mod answers;
mod shared;
mod taken;
mod waiter;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::time::Instant;

use self::answers::Answer;
pub(super) use self::shared::Place;
use self::shared::{Call, Shared, State};
pub(super) use self::taken::Taken;
use self::waiter::Waiter;
pub(super) use self::waiter::{Heard, Waits};
use super::script::Encoded;
use crate::store::{Deadline, StoreError};

/// The number of queued calls among which those of one slot are looked for.
const LOOK_AHEAD: usize = 64;

/// The reason why a call was rejected.
#[derive(Debug)]
pub(super) enum PushError {
    /// The group cannot be encoded.
    Invalid(StoreError),
    Full,
    Closed,
}

/// The queue of calls. Clones are the same queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    max_calls: usize,
    shared: Arc<Shared>,
}

/// A caller that waits. It leaves its cell when it is dropped.
#[derive(Debug)]
struct Asked<'a> {
    shared: &'a Shared,
    cell: Option<usize>,
}

impl Asked<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<Answer> {
        let Some(cell) = self.cell else { return Poll::Ready(None) };
        let fetched = self.shared.lock().answers.fetch(cell, waker);
        if fetched.is_ready() {
            self.cell = None;
        }
        fetched
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell {
            let left = self.shared.lock().answers.leave(cell);
            drop(left);
        }
    }
}

impl Queue {
    /// A queue of at most `max_calls` calls.
    pub(super) fn new(max_calls: usize) -> Self {
        Self { max_calls, shared: Arc::default() }
    }

    /// A frame without calls.
    pub(super) fn empty_frame(&self) -> Taken {
        Taken::of(&self.shared)
    }

    /// Asks for a decision on the group that `encode` returns. The batch task answers by the
    /// deadline, so no timeout is needed. Returns `None` if the task drops the call.
    ///
    /// # Errors
    /// `encode` fails, or the queue is full or closed.
    ///
    /// # Cancel safety
    /// A call that is dropped while it is queued is not sent.
    pub(super) async fn ask(
        &self,
        encode: impl Fn() -> Result<Encoded, StoreError>,
        place: Place,
        deadline: Deadline,
    ) -> Result<Answer, PushError> {
        let mut asked = None;
        poll_fn(|cx| match &mut asked {
            None => {
                // Here, so that the group is not moved from future to future.
                let group = encode().map_err(PushError::Invalid)?;
                let cell = self.push(group, place, deadline, cx.waker())?;
                asked = Some(Asked { shared: &self.shared, cell: Some(cell) });
                Poll::Pending
            }
            Some(asked) => asked.poll(cx.waker()).map(Ok),
        })
        .await
    }

    /// Appends a call; `waker` is woken when it is answered. Wakes the task if it can send calls
    /// now or the alarm has moved. Returns the cell of the answer.
    fn push(
        &self,
        group: Encoded,
        place: Place,
        deadline: Deadline,
        waker: &Waker,
    ) -> Result<usize, PushError> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.calls.len() >= self.max_calls {
            return Err(PushError::Full);
        }
        let earlier = state.set_alarm(deadline.due());
        let (cell, ticket) = state.answers.open(waker.clone());
        state.calls.push_back(Call { group, waiter: Waiter::new(deadline, ticket), place });
        let task = if earlier || state.wanted { state.task.take() } else { None };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(cell)
    }

    /// Returns when a call is queued and `wanted` is true, or when the alarm differs from `alarm`.
    /// For one task only.
    ///
    /// # Cancel safety
    /// Cancel safe: removes no call.
    pub(super) async fn changed(&self, wanted: bool, alarm: Option<Instant>) {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if (wanted && !state.calls.is_empty()) || state.alarm != alarm {
                return Poll::Ready(());
            }
            state.wanted = wanted;
            state.task = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes the calls of the next frame into `taken`, which is empty: the first call, and
    /// following ones of the same place up to `max_claims` claims in all. Skips calls whose caller
    /// has given up, and refuses those that cannot be encoded. Calls of one place stay in order.
    pub(super) fn next_frame(&self, max_claims: usize, taken: &mut Taken) {
        self.shared.change(|state| {
            let State { calls, answers, .. } = state;
            if calls.is_empty() {
                return;
            }
            let now = Instant::now();
            let mut at = 0;
            while at < LOOK_AHEAD
                && let Some(call) = calls.get_mut(at)
            {
                if !call.waiter.check(answers, now, false).goes_on() {
                    calls.remove(at);
                } else if taken.place.is_some_and(|place| place != call.place) {
                    at += 1;
                } else if taken.claims > 0 && taken.claims + call.group.claims() > max_claims {
                    break;
                } else {
                    let is_in = taken.encode(call, answers);
                    let waiter = calls.remove(at).map(|call| call.waiter);
                    taken.waiters.list.extend(waiter.filter(|_| is_in));
                    if taken.place == Some(Place::Asking) {
                        break;
                    }
                }
            }
        });
    }

    /// Answers every call with `reason`.
    pub(super) fn refuse(&self, reason: &StoreError) {
        self.shared.change(|state| {
            let State { calls, answers, .. } = state;
            for mut call in calls.drain(..) {
                call.waiter.answer(answers, Err(reason.clone().into()));
            }
        });
    }

    /// True if no call is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.lock().calls.is_empty()
    }

    /// Rejects further calls and drops the queued ones.
    pub(super) fn close(&self) {
        self.shared.change(|state| {
            state.closed = true;
            let State { calls, answers, .. } = state;
            calls.drain(..).for_each(|mut call| call.waiter.lose(answers));
        });
    }

    /// The time of the alarm.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.shared.lock().alarm
    }

    /// Moves the alarm to `due` if that is earlier.
    pub(super) fn set_alarm(&self, due: Instant) {
        self.shared.lock().set_alarm(due);
    }

    /// Answers the calls that are past their deadline. Sets the alarm to the earliest deadline of
    /// the others.
    pub(super) fn expire(&self, now: Instant) -> Waits {
        self.shared.change(|state| {
            let State { calls, answers, alarm, .. } = state;
            let mut waits = Waits::default();
            calls.retain_mut(|call| {
                let wait = call.waiter.check(answers, now, false);
                waits.add(wait);
                wait.goes_on()
            });
            *alarm = calls.iter().filter_map(|call| call.waiter.due()).min();
            waits
        })
    }
}

#[cfg(test)]
mod tests;
