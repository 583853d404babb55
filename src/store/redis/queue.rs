//! The queue of calls to be sent, and the alarm: the earliest deadline of any call, queued or in
//! flight.
//!
//! Many producers, one consumer: the batch task. The queue does not know the connection.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::script::{Encoded, Integers};
use crate::domain::Timestamp;
use crate::redis::cluster::Redirect;
use crate::store::{Deadline, StoreError};

/// The number of queued calls among which those of one slot are looked for.
const LOOK_AHEAD: usize = 64;

/// A group and the waiter for its answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) group: Encoded,
    pub(super) waiter: Waiter,
    pub(super) place: Place,
}

/// The frames in which a call may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Any frame.
    Anywhere,
    /// A frame of calls of this slot.
    Slot(u16),
    /// A frame of its own, which the node must be told to answer although the slot is elsewhere.
    Asking,
}

/// The receiver of a group's answer: the integers that the script returns for it.
#[derive(Debug)]
pub(super) struct Waiter {
    deadline: Deadline,
    caller: Caller,
}

/// The decision of Redis on a group.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) integers: Integers,
    /// The time of the decision on the clock of Redis.
    pub(super) at: Timestamp,
    /// The number of the connection that has decided.
    pub(super) connection: u64,
}

/// The reason why Redis did not decide.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) error: StoreError,
    /// Another node decides. This one has run nothing.
    pub(super) redirect: Option<Redirect>,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self { error, redirect: None }
    }
}

/// A call that Redis did not decide in time.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) error: StoreError,
    /// The decision of Redis after all, if the call was sent.
    pub(super) late: Option<oneshot::Receiver<Decided>>,
    /// Another node decides.
    pub(super) redirect: Option<Redirect>,
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        Refused::from(error).into()
    }
}

impl From<Refused> for Undecided {
    fn from(Refused { error, redirect }: Refused) -> Self {
        Self { error, late: None, redirect }
    }
}

/// The receiver of an answer.
#[derive(Debug)]
enum Caller {
    Waits(oneshot::Sender<Result<Decided, Undecided>>),
    /// It was answered without Redis, and wants to know what Redis decides.
    GaveUp(oneshot::Sender<Decided>),
    /// It was answered.
    Answered,
}

/// The state of a waiter at a given time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// The caller waits.
    On,
    /// The caller waits longer, because this process was late itself.
    Extended,
    /// The deadline has just passed: answered with a timeout.
    Late,
    /// Answered before, or nobody waits.
    Over,
}

impl Wait {
    /// True if the caller still waits.
    pub(super) const fn goes_on(self) -> bool {
        matches!(self, Self::On | Self::Extended)
    }
}

/// The number of waiters that have just been given up or extended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    pub(super) late: u32,
    pub(super) extended: u32,
}

impl Waits {
    /// Counts one waiter.
    pub(super) fn add(&mut self, wait: Wait) {
        self.late += u32::from(wait == Wait::Late);
        self.extended += u32::from(wait == Wait::Extended);
    }
}

impl Waiter {
    /// A waiter with a deadline, and the receiver of its answer.
    pub(super) fn new(deadline: Deadline) -> (Self, oneshot::Receiver<Result<Decided, Undecided>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { deadline, caller: Caller::Waits(sender) }, receiver)
    }

    /// Sends the answer, unless one was sent. Returns true if the caller still waited for it.
    pub(super) fn answer(&mut self, answer: Result<Decided, Refused>) -> bool {
        match std::mem::replace(&mut self.caller, Caller::Answered) {
            Caller::Waits(sender) => sender.send(answer.map_err(Undecided::from)).is_ok(),
            Caller::GaveUp(sender) => {
                if let Ok(decided) = answer {
                    drop(sender.send(decided));
                }
                false
            }
            Caller::Answered => false,
        }
    }

    /// The deadline; `None` after the caller was answered.
    pub(super) fn due(&self) -> Option<Instant> {
        matches!(self.caller, Caller::Waits(_)).then_some(self.deadline.due())
    }

    /// Answers with a timeout if the deadline has passed through no fault of this process. If the
    /// call is `sent`, the caller will learn what Redis decides.
    pub(super) fn check(&mut self, now: Instant, sent: bool) -> Wait {
        match &self.caller {
            Caller::Waits(sender) if !sender.is_closed() => {}
            _ => return Wait::Over,
        }
        if now < self.deadline.due() {
            return Wait::On;
        }
        if let Some(extended) = self.deadline.extended(now) {
            self.deadline = extended;
            return Wait::Extended;
        }
        let (decided, late) = oneshot::channel();
        let caller = if sent { Caller::GaveUp(decided) } else { Caller::Answered };
        if let Caller::Waits(sender) = std::mem::replace(&mut self.caller, caller) {
            let late = sent.then_some(late);
            let undecided = Undecided { late, ..StoreError::Timeout.into() };
            drop(sender.send(Err(undecided)));
        }
        Wait::Late
    }
}

/// The reason why a call was rejected.
#[derive(Debug)]
pub(super) enum PushError {
    Full,
    Closed,
}

/// The queue of calls.
#[derive(Debug)]
pub(super) struct Queue {
    max_calls: usize,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    calls: VecDeque<Call>,
    /// True if the task can send a call now.
    wanted: bool,
    alarm: Option<Instant>,
    /// The waker of the sleeping task.
    task: Option<Waker>,
    closed: bool,
}

impl QueueState {
    /// Moves the alarm to `due` if that is earlier. Returns true if it was moved.
    fn set_alarm(&mut self, due: Instant) -> bool {
        let earlier = self.alarm.is_none_or(|alarm| due < alarm);
        if earlier {
            self.alarm = Some(due);
        }
        earlier
    }
}

impl Queue {
    /// A queue of at most `max_calls` calls.
    pub(super) fn new(max_calls: usize) -> Self {
        Self { max_calls, state: Mutex::default() }
    }

    /// Appends `call`. Wakes the task if it can send calls now or the alarm has moved.
    pub(super) fn push(&self, call: Call) -> Result<(), PushError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.calls.len() >= self.max_calls {
            return Err(PushError::Full);
        }
        let earlier = state.set_alarm(call.waiter.deadline.due());
        state.calls.push_back(call);
        let task = if earlier || state.wanted { state.task.take() } else { None };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(())
    }

    /// Returns when a call is queued and `wanted` is true, or when the alarm differs from `alarm`.
    /// For one task only.
    ///
    /// # Cancel safety
    /// Cancel safe: removes no call.
    pub(super) async fn changed(&self, wanted: bool, alarm: Option<Instant>) {
        std::future::poll_fn(|cx: &mut Context<'_>| {
            let mut state = self.state.lock();
            if (wanted && !state.calls.is_empty()) || state.alarm != alarm {
                return Poll::Ready(());
            }
            state.wanted = wanted;
            state.task = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Removes the calls of the next frame: the first call, and following ones of the same place up
    /// to `max_claims` claims in all. Skips calls whose caller has given up. Calls of one place
    /// stay in order.
    pub(super) fn next_frame(&self, max_claims: usize) -> Vec<Call> {
        let mut taken = Vec::new();
        let mut state = self.state.lock();
        if state.calls.is_empty() {
            return taken;
        }
        taken.reserve(state.calls.len().min(max_claims));
        let now = Instant::now();
        let (mut claims, mut place, mut at) = (0, None, 0);
        while at < LOOK_AHEAD
            && let Some(call) = state.calls.get_mut(at)
        {
            if !call.waiter.check(now, false).goes_on() {
                state.calls.remove(at);
            } else if place.is_some_and(|place| place != call.place) {
                at += 1;
            } else if claims > 0 && claims + call.group.claims() > max_claims {
                break;
            } else {
                claims += call.group.claims();
                place = Some(call.place);
                taken.extend(state.calls.remove(at));
                if place == Some(Place::Asking) {
                    break;
                }
            }
        }
        taken
    }

    /// Answers every call with `reason`.
    pub(super) fn refuse(&self, reason: &StoreError) {
        let calls = std::mem::take(&mut self.state.lock().calls);
        for mut call in calls {
            call.waiter.answer(Err(reason.clone().into()));
        }
    }

    /// True if no call is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().calls.is_empty()
    }

    /// Rejects further calls and drops the queued ones.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.calls.clear();
    }

    /// The time of the alarm.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.state.lock().alarm
    }

    /// Moves the alarm to `due` if that is earlier.
    pub(super) fn set_alarm(&self, due: Instant) {
        self.state.lock().set_alarm(due);
    }

    /// Answers the calls that are past their deadline. Sets the alarm to the earliest deadline of
    /// the others.
    pub(super) fn expire(&self, now: Instant) -> Waits {
        let mut waits = Waits::default();
        let mut state = self.state.lock();
        state.calls.retain_mut(|call| {
            let wait = call.waiter.check(now, false);
            waits.add(wait);
            wait.goes_on()
        });
        state.alarm = state.calls.iter().filter_map(|call| call.waiter.due()).min();
        waits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::{Commit, Group};

    type Answer = oneshot::Receiver<Result<Decided, Undecided>>;

    fn push(queue: &Queue, deadline: Instant) -> Answer {
        push_to(queue, deadline, Place::Anywhere)
    }

    fn push_to(queue: &Queue, deadline: Instant, place: Place) -> Answer {
        let group = Encoded::new(&Group { parts: vec![], claims: vec![] }, Commit::Together);
        let (waiter, answer) = Waiter::new(deadline.into());
        queue.push(Call { group: group.unwrap(), waiter, place }).unwrap();
        answer
    }

    fn is_late(answer: &mut Answer) -> bool {
        matches!(answer.try_recv(), Ok(Err(Undecided { error: StoreError::Timeout, .. })))
    }

    #[test]
    fn wanted_calls_and_earlier_deadlines_wake_the_task() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        assert_eq!(queue.changed(true, None).now_or_never(), None);
        let _first = push(&queue, later);
        assert_eq!(queue.changed(false, None).now_or_never(), Some(()));
        assert_eq!(queue.changed(false, Some(later)).now_or_never(), None);
        assert_eq!(queue.changed(true, Some(later)).now_or_never(), Some(()));
        let _second = push(&queue, soon);
        assert_eq!(queue.alarm(), Some(soon));
        assert_eq!(queue.changed(false, Some(later)).now_or_never(), Some(()));
    }

    #[test]
    fn late_calls_are_answered_and_the_alarm_moves_to_the_next_deadline() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let [first, second, third] = [1, 2, 3].map(|ms| now + Duration::from_millis(ms));
        let [mut a, mut b, mut c] = [first, third, first].map(|due| push(&queue, due));
        queue.expire(first);
        assert_eq!([&mut a, &mut b, &mut c].map(is_late), [true, false, true]);
        assert_eq!(queue.alarm(), Some(third));
        queue.set_alarm(second);
        assert_eq!(queue.alarm(), Some(second));
        queue.expire(third);
        assert!(is_late(&mut b));
        assert_eq!(queue.alarm(), None);
    }

    #[test]
    fn late_and_abandoned_calls_are_skipped() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let mut late = push(&queue, now);
        drop(push(&queue, now + Duration::from_mins(1)));
        let _waited_for = push(&queue, now + Duration::from_mins(1));
        assert_eq!(queue.next_frame(8).len(), 1);
        assert!(is_late(&mut late));
        assert!(queue.next_frame(8).is_empty());
    }

    #[test]
    fn closed_queue_drops_its_calls_and_rejects_new_ones() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let mut answer = push(&queue, now);
        queue.close();
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let group = Encoded::new(&Group { parts: vec![], claims: vec![] }, Commit::Together);
        let waiter = Waiter::new(now.into()).0;
        let call = Call { group: group.unwrap(), waiter, place: Place::Anywhere };
        assert!(matches!(queue.push(call), Err(PushError::Closed)));
    }

    #[test]
    fn frame_has_calls_of_one_slot_in_their_order() {
        let (queue, due) = (Queue::new(1_000), Instant::now() + Duration::from_mins(1));
        let order = [1, 2, 1, 3, 2, 1].map(Place::Slot);
        let _answers: Vec<_> = order.iter().map(|place| push_to(&queue, due, *place)).collect();
        let _asking = push_to(&queue, due, Place::Asking);
        let _asking = push_to(&queue, due, Place::Asking);
        let frame = || {
            let calls = queue.next_frame(8);
            let first = calls.first().map(|call| call.place);
            assert!(calls.iter().all(|call| Some(call.place) == first));
            (first, calls.len())
        };
        let slot = |slot| Some(Place::Slot(slot));
        assert_eq!([frame(), frame(), frame()], [(slot(1), 3), (slot(2), 2), (slot(3), 1)]);
        let asking = (Some(Place::Asking), 1);
        assert_eq!([frame(), frame(), frame()], [asking, asking, (None, 0)]);
    }

    #[test]
    fn calls_far_behind_wait_for_a_later_frame() {
        let (queue, due) = (Queue::new(1_000), Instant::now() + Duration::from_mins(1));
        let mut answers = vec![push_to(&queue, due, Place::Slot(1))];
        answers.extend((0..LOOK_AHEAD).map(|_| push_to(&queue, due, Place::Slot(2))));
        answers.push(push_to(&queue, due, Place::Slot(1)));
        assert_eq!(queue.next_frame(1_000).len(), 1);
        assert_eq!(queue.next_frame(1_000).len(), LOOK_AHEAD);
        assert_eq!(queue.next_frame(1_000).len(), 1);
    }
}
