//! The calls of a frame: their groups, encoded, and their waiters.

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::answers::Answers;
use super::shared::{Call, Place, Shared};
use super::waiter::{Heard, Waiter, Waits};
use crate::store::redis::decided::{Decided, Refused};
use crate::store::redis::script::Frame;

/// The calls of a frame.
#[derive(Debug)]
pub(in crate::store::redis) struct Taken {
    pub(in crate::store::redis) frame: Frame,
    /// One for each group of the frame.
    pub(in crate::store::redis) waiters: Waiters,
    /// The claims of all groups.
    pub(in crate::store::redis) claims: usize,
    /// The place of all calls, if there are any.
    pub(in crate::store::redis) place: Option<Place>,
}

impl Taken {
    /// No calls of a queue.
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        let waiters = Waiters { shared: Arc::clone(shared), list: Vec::new(), woken: Vec::new() };
        Self { frame: Frame::default(), waiters, claims: 0, place: None }
    }

    /// Encodes the group of `call`, or refuses it. Returns true if it is in the frame: its waiter
    /// belongs here then.
    pub(super) fn encode(&mut self, call: &mut Call, answers: &mut Answers) -> bool {
        if let Err(error) = self.frame.push(&call.group) {
            call.waiter.answer(answers, Err(error.into()));
            return false;
        }
        self.claims += call.group.claims();
        self.place = Some(call.place);
        true
    }

    /// Forgets the calls, which are answered.
    pub(in crate::store::redis) fn clear(&mut self) {
        self.frame.clear();
        (self.claims, self.place) = (0, None);
    }
}

/// Callers of a queue that wait for the answer to a frame. Those that are left when it is dropped
/// learn that their answers are lost.
#[derive(Debug)]
pub(in crate::store::redis) struct Waiters {
    shared: Arc<Shared>,
    pub(super) list: Vec<Waiter>,
    /// Empty; its memory is used again.
    woken: Vec<Waker>,
}

impl Drop for Waiters {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            self.shared.change(|state| {
                self.list.iter_mut().for_each(|waiter| waiter.lose(&mut state.answers));
            });
        }
    }
}

impl Waiters {
    /// The number of callers.
    pub(in crate::store::redis) fn len(&self) -> usize {
        self.list.len()
    }

    /// Gives each caller what `next` returns, in their order, and forgets them.
    pub(in crate::store::redis) fn answer(
        &mut self,
        mut next: impl FnMut() -> Result<Decided, Refused>,
    ) -> Heard {
        let mut heard = Heard::default();
        let mut state = self.shared.lock();
        for waiter in &mut self.list {
            heard += waiter.answer(&mut state.answers, next());
        }
        mem::swap(&mut self.woken, &mut state.answers.woken);
        drop(state);
        self.list.clear();
        self.woken.drain(..).for_each(Waker::wake);
        heard
    }

    /// Answers those that are past their deadline. They will learn what Redis decides.
    pub(in crate::store::redis) fn expire(&mut self, now: Instant) -> Waits {
        let list = &mut self.list;
        self.shared.change(|state| {
            let mut waits = Waits::default();
            for waiter in list {
                waits.add(waiter.check(&mut state.answers, now, true));
            }
            waits
        })
    }

    /// The earliest deadline of those that wait.
    pub(in crate::store::redis) fn due(&self) -> Option<Instant> {
        self.list.iter().filter_map(Waiter::due).min()
    }
}
