//! A caller as the queue and the frames in flight see it: its deadline, and the way to answer it.

use std::mem;
use std::ops::AddAssign;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answers::{Answers, Ticket};
use crate::store::redis::decided::{Decided, Refused, Undecided};
use crate::store::{Deadline, StoreError};

/// The receiver of a group's answer: the integers that the script returns for it.
#[derive(Debug)]
pub(super) struct Waiter {
    deadline: Deadline,
    caller: Caller,
}

/// The receiver of an answer.
#[derive(Debug)]
enum Caller {
    Waits(Ticket),
    /// It was answered without Redis, and wants to know what Redis decides.
    GaveUp(oneshot::Sender<Decided>),
    /// It was answered, or has left.
    Gone,
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
pub(in crate::store::redis) struct Waits {
    pub(in crate::store::redis) late: u32,
    pub(in crate::store::redis) extended: u32,
}

impl Waits {
    /// Counts one waiter.
    pub(super) fn add(&mut self, wait: Wait) {
        self.late += u32::from(wait == Wait::Late);
        self.extended += u32::from(wait == Wait::Extended);
    }
}

impl AddAssign for Waits {
    fn add_assign(&mut self, other: Self) {
        self.late += other.late;
        self.extended += other.extended;
    }
}

/// The number of callers that an answer of Redis has reached.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store::redis) struct Heard {
    /// Callers that waited for it.
    pub(in crate::store::redis) in_time: u32,
    /// Callers that were answered without Redis before.
    pub(in crate::store::redis) late: u32,
}

impl AddAssign for Heard {
    fn add_assign(&mut self, other: Self) {
        self.in_time += other.in_time;
        self.late += other.late;
    }
}

impl Waiter {
    pub(super) const fn new(deadline: Deadline, ticket: Ticket) -> Self {
        Self { deadline, caller: Caller::Waits(ticket) }
    }

    /// Passes the answer of Redis on, and says whether somebody hears it.
    pub(super) fn answer(
        &mut self,
        answers: &mut Answers,
        answer: Result<Decided, Refused>,
    ) -> Heard {
        match mem::replace(&mut self.caller, Caller::Gone) {
            Caller::Waits(ticket) => {
                let answer = answer.map_err(Undecided::from);
                Heard { in_time: answers.give(ticket, Some(answer)).into(), late: 0 }
            }
            Caller::GaveUp(sender) => {
                if let Ok(decided) = answer {
                    drop(sender.send(decided));
                }
                Heard { in_time: 0, late: 1 }
            }
            Caller::Gone => Heard::default(),
        }
    }

    /// There will be no answer.
    pub(super) fn lose(&mut self, answers: &mut Answers) {
        if let Caller::Waits(ticket) = mem::replace(&mut self.caller, Caller::Gone) {
            answers.give(ticket, None);
        }
    }

    /// The deadline; `None` after the caller was answered.
    pub(super) fn due(&self) -> Option<Instant> {
        matches!(self.caller, Caller::Waits(_)).then_some(self.deadline.due())
    }

    /// Answers with a timeout if the deadline has passed through no fault of this process. If the
    /// call is `sent`, the caller will learn what Redis decides.
    pub(super) fn check(&mut self, answers: &mut Answers, now: Instant, sent: bool) -> Wait {
        let Caller::Waits(ticket) = &self.caller else { return Wait::Over };
        if answers.is_left(ticket) {
            self.lose(answers);
            return Wait::Over;
        }
        if now < self.deadline.due() {
            return Wait::On;
        }
        if let Some(extended) = self.deadline.extended(now) {
            self.deadline = extended;
            return Wait::Extended;
        }
        let (decided, late) = oneshot::channel();
        let (caller, late) =
            if sent { (Caller::GaveUp(decided), Some(late)) } else { (Caller::Gone, None) };
        if let Caller::Waits(ticket) = mem::replace(&mut self.caller, caller) {
            let undecided = Undecided { late, ..StoreError::Timeout.into() };
            answers.give(ticket, Some(Err(undecided)));
        }
        Wait::Late
    }
}
