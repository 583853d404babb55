//! The calls that wait and the answers to their callers, under one lock.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::answers::Answers;
use super::waiter::Waiter;
use crate::store::redis::script::Encoded;

/// A group and the waiter for its answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) group: Encoded,
    pub(super) waiter: Waiter,
    pub(super) place: Place,
}

/// The frames in which a call may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store::redis) enum Place {
    /// Any frame.
    Anywhere,
    /// A frame of calls of this slot.
    Slot(u16),
    /// A frame of its own, which the node must be told to answer although the slot is elsewhere.
    Asking,
}

/// The state of a queue, for all who use it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) calls: VecDeque<Call>,
    pub(super) answers: Answers,
    /// True if the task can send a call now.
    pub(super) wanted: bool,
    pub(super) alarm: Option<Instant>,
    /// The waker of the sleeping task.
    pub(super) task: Option<Waker>,
    pub(super) closed: bool,
}

impl State {
    /// Moves the alarm to `due` if that is earlier. Returns true if it was moved.
    pub(super) fn set_alarm(&mut self, due: Instant) -> bool {
        let earlier = self.alarm.is_none_or(|alarm| due < alarm);
        if earlier {
            self.alarm = Some(due);
        }
        earlier
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state. Callers that have got their answers are woken after the lock is released:
    /// they may run at once, and ask again.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        if state.answers.woken.is_empty() {
            return result;
        }
        let woken = mem::take(&mut state.answers.woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }
}
