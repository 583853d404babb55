//! Where requests wait to be sent, and the hour at which one of them, sent or not, must be answered.
//!
//! Many callers, one task that takes. It knows nothing of connections: what becomes of a call is the task's business.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::script::{Encoded, Integers};
use crate::store::StoreError;

/// A group on its way to Redis.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) group: Encoded,
    pub(super) waiter: Waiter,
}

/// Who waits for the integers of a group.
#[derive(Debug)]
pub(super) struct Waiter {
    deadline: Instant,
    /// None once it has answered.
    answer: Option<oneshot::Sender<Result<Integers, StoreError>>>,
}

impl Waiter {
    /// One that waits until `deadline`, and where its answer appears.
    pub(super) fn new(
        deadline: Instant,
    ) -> (Self, oneshot::Receiver<Result<Integers, StoreError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { deadline, answer: Some(sender) }, receiver)
    }

    /// Answers, unless that was done or nobody waits any more.
    pub(super) fn answer(&mut self, answer: Result<Integers, StoreError>) {
        if let Some(sender) = self.answer.take() {
            drop(sender.send(answer));
        }
    }

    /// When it must be answered; none if it was.
    pub(super) fn due(&self) -> Option<Instant> {
        self.answer.is_some().then_some(self.deadline)
    }

    /// Whether the answer is still waited for. Gives up one that is late.
    pub(super) fn waits(&mut self, now: Instant) -> bool {
        if self.deadline <= now {
            self.answer(Err(StoreError::Timeout));
        }
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

/// Why a call was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    Full,
    Closed,
}

/// The calls that wait.
#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<Call>,
    /// Whether the task would take a call now.
    wanted: bool,
    alarm: Option<Instant>,
    /// The task while it sleeps.
    task: Option<Waker>,
    closed: bool,
}

impl State {
    /// Sees to it that the alarm goes off no later than at `due`; whether it is earlier than before.
    fn set_alarm(&mut self, due: Instant) -> bool {
        let earlier = self.alarm.is_none_or(|alarm| due < alarm);
        if earlier {
            self.alarm = Some(due);
        }
        earlier
    }
}

impl Queue {
    /// A queue of at most `most` calls.
    pub(super) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Appends `call`, and wakes the task if it is concerned.
    pub(super) fn push(&self, call: Call) -> Result<(), NotTaken> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        if state.calls.len() >= self.most {
            return Err(NotTaken::Full);
        }
        let earlier = state.set_alarm(call.waiter.deadline);
        state.calls.push_back(call);
        let task = if earlier || state.wanted { state.task.take() } else { None };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(())
    }

    /// Returns when there is a call and it is `wanted`, or when the alarm is no longer at `alarm`. One task at a time.
    ///
    /// # Cancel safety
    /// Takes nothing.
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

    /// Takes the calls of one frame, those that somebody waits for: the first, and what comes after it as long as all
    /// have no more than `most` claims.
    pub(super) fn take(&self, most: usize) -> Vec<Call> {
        let mut taken = Vec::new();
        let mut state = self.state.lock();
        if state.calls.is_empty() {
            return taken;
        }
        taken.reserve(state.calls.len().min(most));
        let now = Instant::now();
        let mut claims = 0;
        while let Some(mut call) = state.calls.pop_front() {
            if !call.waiter.waits(now) {
                continue;
            }
            if claims > 0 && claims + call.group.claims() > most {
                state.calls.push_front(call);
                break;
            }
            claims += call.group.claims();
            taken.push(call);
        }
        taken
    }

    /// Answers every call with `reason`.
    pub(super) fn refuse(&self, reason: &StoreError) {
        let calls = std::mem::take(&mut self.state.lock().calls);
        for mut call in calls {
            call.waiter.answer(Err(reason.clone()));
        }
    }

    /// Takes no more calls, and drops those that wait.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.calls.clear();
    }

    /// When the alarm goes off.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.state.lock().alarm
    }

    /// Sees to it that the alarm goes off no later than at `due`.
    pub(super) fn set_alarm(&self, due: Instant) {
        self.state.lock().set_alarm(due);
    }

    /// Gives up the calls that are late, and sets the alarm to the earliest deadline of the others, or to `elsewhere` if
    /// that is earlier.
    pub(super) fn expire(&self, now: Instant, elsewhere: Option<Instant>) {
        let mut state = self.state.lock();
        state.calls.retain_mut(|call| call.waiter.waits(now));
        state.alarm =
            state.calls.iter().filter_map(|call| call.waiter.due()).chain(elsewhere).min();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::{Commit, Group};

    type Answer = oneshot::Receiver<Result<Integers, StoreError>>;

    fn push(queue: &Queue, deadline: Instant) -> Answer {
        let group = Encoded::new(&Group { parts: vec![], claims: vec![] }, Commit::Together);
        let (waiter, answer) = Waiter::new(deadline);
        queue.push(Call { group: group.unwrap(), waiter }).unwrap();
        answer
    }

    fn is_late(answer: &mut Answer) -> bool {
        matches!(answer.try_recv(), Ok(Err(StoreError::Timeout)))
    }

    #[test]
    fn task_hears_of_calls_it_wants_and_of_earlier_deadlines_alone() {
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
    fn late_calls_are_answered_and_the_alarm_is_set_to_the_next() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let [first, second, third] = [1, 2, 3].map(|ms| now + Duration::from_millis(ms));
        let [mut a, mut b, mut c] = [first, third, first].map(|due| push(&queue, due));
        queue.expire(first, None);
        assert_eq!([&mut a, &mut b, &mut c].map(is_late), [true, false, true]);
        assert_eq!(queue.alarm(), Some(third));
        queue.expire(first, Some(second));
        assert_eq!(queue.alarm(), Some(second));
        queue.expire(third, None);
        assert!(is_late(&mut b));
        assert_eq!(queue.alarm(), None);
    }

    #[test]
    fn what_is_late_or_abandoned_is_not_taken() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let mut late = push(&queue, now);
        drop(push(&queue, now + Duration::from_mins(1)));
        let _waited_for = push(&queue, now + Duration::from_mins(1));
        assert_eq!(queue.take(8).len(), 1);
        assert!(is_late(&mut late));
        assert!(queue.take(8).is_empty());
    }

    #[test]
    fn closed_queue_drops_what_waits_and_takes_nothing() {
        let (queue, now) = (Queue::new(8), Instant::now());
        let mut answer = push(&queue, now);
        queue.close();
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let group = Encoded::new(&Group { parts: vec![], claims: vec![] }, Commit::Together);
        let call = Call { group: group.unwrap(), waiter: Waiter::new(now).0 };
        assert!(matches!(queue.push(call), Err(NotTaken::Closed)));
    }
}
