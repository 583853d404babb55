//! The commands that were sent to Redis and not yet answered, in the order of their replies.
//!
//! This module encodes commands and interprets replies. `batch.rs` owns the socket and the timing.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Call, Decided, Waiter, Waits};
use super::script::{AmendFrame, Frame, Reply, Script};
use crate::redis::login::Login;
use crate::redis::resp::{self, Message};

use crate::domain::{Amendment, Key};
use crate::store::{Deadline, StoreError};

/// A command that is no decision.
#[derive(Debug)]
pub(super) enum Command {
    Forget(Forget),
    /// Amendments whose outcome nobody waits for.
    Amend(Vec<Amendment>),
}

/// A reset of counters.
#[derive(Debug)]
pub(super) struct Forget {
    pub(super) keys: Vec<Key>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<u32, StoreError>>,
}

/// The commands in flight on one connection.
pub(super) struct Pipeline<'a> {
    script: &'a Script,
    amend: &'a Script,
    pending: VecDeque<Pending>,
    frames: usize,
    /// Cleared frames, kept to reuse their memory.
    spare: Vec<(Box<Frame>, Vec<Waiter>)>,
}

struct Pending {
    payload: Payload,
    /// The time by which the connection must answer; afterwards it is closed.
    due: Instant,
}

enum Payload {
    Frame {
        frame: Box<Frame>,
        waiters: Vec<Waiter>,
        /// The time after which the frame counts as overdue.
        expected: Deadline,
        /// True if the frame was sent with the text of the script (EVAL).
        with_text: bool,
    },
    /// The script on an empty frame.
    Probe {
        with_text: bool,
    },
    Forget(oneshot::Sender<Result<u32, StoreError>>),
    LogIn,
    Amend {
        frame: Box<AmendFrame>,
        /// They are charges that Redis is told of.
        told: bool,
    },
}

/// The effect of a reply.
#[derive(Debug, Default)]
pub(super) struct Completed {
    /// Calls that got their answer in time.
    pub(super) answered: u32,
    /// Calls whose caller was answered without Redis before.
    pub(super) late: u32,
    /// Redis has decided, and not refused.
    pub(super) decided: bool,
    /// States that could not be decoded.
    pub(super) unreadable: u64,
    /// Of a probe: true if Redis did not answer with an error.
    pub(super) probe: Option<bool>,
    /// Of charges that Redis was told: the amounts that it has charged.
    pub(super) told: Option<Result<Vec<u64>, StoreError>>,
}

/// Findings past their time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expired {
    pub(super) waits: Waits,
    /// A frame is overdue.
    pub(super) overdue: bool,
    /// Redis must have answered by now: the connection must be closed.
    pub(super) broken: bool,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(script: &'a Script, amend: &'a Script) -> Self {
        Self { script, amend, pending: VecDeque::new(), frames: 0, spare: Vec::new() }
    }

    /// The number of frames in flight.
    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    /// The number of commands in flight.
    pub(super) fn commands(&self) -> usize {
        self.pending.len()
    }

    /// Writes one frame of `calls` to `out`; it is overdue after `expected`. Returns false if none
    /// of them could be encoded.
    pub(super) fn send(
        &mut self,
        calls: Vec<Call>,
        out: &mut Vec<u8>,
        expected: Deadline,
        due: Instant,
    ) -> bool {
        let (mut frame, mut waiters) = self.spare.pop().unwrap_or_default();
        for Call { group, mut waiter } in calls {
            match frame.push(&group) {
                Ok(()) => waiters.push(waiter),
                Err(error) => drop(waiter.answer(Err(error))),
            }
        }
        if waiters.is_empty() {
            return false;
        }
        self.script.call(&frame, out);
        self.frames += 1;
        let payload = Payload::Frame { frame, waiters, expected, with_text: false };
        self.pending.push_back(Pending { payload, due });
        true
    }

    /// Writes a probe to `out`.
    pub(super) fn probe(&mut self, out: &mut Vec<u8>, due: Instant) {
        self.script.call(&Frame::default(), out);
        self.pending.push_back(Pending { payload: Payload::Probe { with_text: false }, due });
    }

    /// Writes the call that applies up to [`MAX_AMENDMENTS`](super::script::MAX_AMENDMENTS)
    /// amendments to `out`.
    pub(super) fn amend(
        &mut self,
        amendments: &[Amendment],
        told: bool,
        out: &mut Vec<u8>,
        due: Instant,
    ) {
        let mut frame = Box::<AmendFrame>::default();
        for amendment in amendments {
            frame.push(amendment);
        }
        // With the text: it is rare, and Redis keeps the compiled script by its hash all the same.
        frame.write(b"EVAL", self.amend.text().as_bytes(), out);
        self.pending.push_back(Pending { payload: Payload::Amend { frame, told }, due });
    }

    /// Writes the command that resets counters to `out`, unless its caller has given up.
    pub(super) fn forget(&mut self, forget: Forget, out: &mut Vec<u8>, due: Instant) {
        let Forget { keys, deadline, answer } = forget;
        if answer.is_closed() || deadline <= Instant::now() {
            return;
        }
        resp::put_count(out, 1 + keys.len());
        resp::put_string(out, b"DEL");
        for key in &keys {
            resp::put_string(out, key.as_bytes());
        }
        self.pending.push_back(Pending { payload: Payload::Forget(answer), due });
    }

    /// Writes the command that logs in again to `out`, after user or password have changed.
    pub(super) fn log_in(&mut self, login: &Login, out: &mut Vec<u8>, due: Instant) {
        if login.put(out) {
            self.pending.push_back(Pending { payload: Payload::LogIn, due });
        }
    }

    /// Distributes the next reply. After NOSCRIPT, writes the command to `out` again, with the text
    /// of the script.
    ///
    /// # Errors
    /// Fails with the reason if the connection must be closed.
    pub(super) fn complete(
        &mut self,
        message: Message,
        out: &mut Vec<u8>,
    ) -> Result<Completed, String> {
        let Some(Pending { payload, due }) = self.pending.pop_front() else {
            return Err("Redis answered what was not asked".to_owned());
        };
        let unknown = matches!(&message, Message::Error(text) if code(text) == "NOSCRIPT");
        match payload {
            Payload::Frame { frame, waiters, expected, with_text: false } if unknown => {
                self.script.call_with_text(&frame, out);
                let payload = Payload::Frame { frame, waiters, expected, with_text: true };
                self.pending.push_back(Pending { payload, due });
                Ok(Completed::default())
            }
            Payload::Probe { with_text: false } if unknown => {
                self.script.call_with_text(&Frame::default(), out);
                let payload = Payload::Probe { with_text: true };
                self.pending.push_back(Pending { payload, due });
                Ok(Completed::default())
            }
            Payload::Frame { frame, waiters, .. } => self.complete_frame(frame, waiters, message),
            Payload::Probe { .. } => {
                let well = matches!(message, Message::Integers(_));
                Ok(Completed { probe: Some(well), ..Completed::default() })
            }
            Payload::Forget(answer) => {
                drop(answer.send(emptied(message)));
                Ok(Completed::default())
            }
            Payload::Amend { frame, told } => {
                let told = told.then(|| applied(&frame, message));
                Ok(Completed { told, ..Completed::default() })
            }
            // The connection keeps its user when Redis refuses the new one, and has logged why.
            Payload::LogIn => Ok(Completed::default()),
        }
    }

    fn complete_frame(
        &mut self,
        mut frame: Box<Frame>,
        mut waiters: Vec<Waiter>,
        message: Message,
    ) -> Result<Completed, String> {
        self.frames -= 1;
        let (mut reply, end) = match message {
            Message::Integers(integers) => aligned(Reply::new(integers), frame.integers()),
            Message::Integer(_) | Message::Text(_) => misaligned("no list of integers"),
            // READONLY after a failover: reconnect, because the name may resolve to the new
            // primary.
            Message::Error(text) if code(&text) == "READONLY" => {
                (Err(StoreError::Rejected(text.clone())), Some(text))
            }
            Message::Error(text) => (Err(StoreError::Rejected(text)), None),
        };
        let unreadable = reply.as_ref().map_or(0, |reply| reply.unreadable);
        let mut completed = Completed { unreadable, ..Completed::default() };
        for (waiter, integers) in waiters.iter_mut().zip(frame.integers()) {
            let answer = match &mut reply {
                Ok(reply) => {
                    Ok(Decided { integers: reply.next_group(*integers), at: reply.decided_at })
                }
                Err(error) => Err(error.clone()),
            };
            completed.late += u32::from(waiter.due().is_none());
            completed.decided |= answer.is_ok();
            completed.answered += u32::from(waiter.answer(answer));
        }
        frame.clear();
        waiters.clear();
        self.spare.push((frame, waiters));
        end.map_or(Ok(completed), Err)
    }

    /// Answers the waiters that are past their deadline.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        for command in &mut self.pending {
            expired.broken |= command.due <= now;
            if let Payload::Frame { waiters, expected, .. } = &mut command.payload {
                match expected.extended(now) {
                    Some(extended) => *expected = extended,
                    None => expired.overdue |= expected.due() <= now,
                }
                for waiter in waiters {
                    expired.waits.add(waiter.check(now, true));
                }
            }
        }
        expired
    }

    /// The earliest time at which a waiter, a command or, if `overdue` counts, a frame is late.
    pub(super) fn alarm(&self, overdue: bool) -> Option<Instant> {
        let times = self.pending.iter().flat_map(|Pending { payload, due }| {
            let (waiters, expected) = match payload {
                Payload::Frame { waiters, expected, .. } => {
                    (waiters.as_slice(), overdue.then_some(expected.due()))
                }
                Payload::Probe { .. }
                | Payload::Forget(_)
                | Payload::LogIn
                | Payload::Amend { .. } => (&[][..], None),
            };
            waiters.iter().filter_map(Waiter::due).chain(expected).chain([*due])
        });
        times.min()
    }

    /// Answers everyone with `error`.
    pub(super) fn fail(&mut self, error: &StoreError) {
        for pending in self.pending.drain(..) {
            match pending.payload {
                Payload::Frame { waiters, .. } => {
                    for mut waiter in waiters {
                        waiter.answer(Err(error.clone()));
                    }
                }
                Payload::Probe { .. } | Payload::Amend { .. } | Payload::LogIn => {}
                Payload::Forget(answer) => drop(answer.send(Err(error.clone()))),
            }
        }
    }
}

/// Checks that a reply has the length for groups of these counts. If not, the connection is closed,
/// because a misaligned reply would shift the answers of all later frames.
fn aligned(
    reply: Result<Reply, StoreError>,
    counts: &[usize],
) -> (Result<Reply, StoreError>, Option<String>) {
    match reply {
        Ok(reply) if reply.is_of(counts) => (Ok(reply), None),
        Ok(_) => misaligned("a list of the wrong length"),
        Err(error) => (Err(error.clone()), Some(error.to_string())),
    }
}

fn misaligned(what: &str) -> (Result<Reply, StoreError>, Option<String>) {
    let error = StoreError::Protocol(what.to_owned());
    let reason = error.to_string();
    (Err(error), Some(reason))
}

/// The error code: the first word of an error reply.
fn code(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// The amounts that amendments have applied.
fn applied(frame: &AmendFrame, message: Message) -> Result<Vec<u64>, StoreError> {
    match message {
        Message::Integers(amounts) => frame.amounts(amounts),
        Message::Error(text) => Err(StoreError::Rejected(text)),
        Message::Integer(_) | Message::Text(_) => {
            Err(StoreError::Protocol("no list of integers".to_owned()))
        }
    }
}

/// The number of counters that were not empty.
fn emptied(message: Message) -> Result<u32, StoreError> {
    match message {
        Message::Integer(count) => u32::try_from(count)
            .map_err(|_| StoreError::Protocol(format!("{count} counters were emptied"))),
        Message::Integers(_) | Message::Text(_) => {
            Err(StoreError::Protocol("no single integer".to_owned()))
        }
        Message::Error(text) => Err(StoreError::Rejected(text)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::queue::Undecided;
    use super::*;
    use crate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Limit, Part};
    use crate::store::redis::script::Encoded;

    fn call() -> (Call, oneshot::Receiver<Result<Decided, Undecided>>) {
        let period = Duration::from_secs(1);
        let limit = Limit::new(9, period, Algorithm::FixedWindow, Charge::Admitted).unwrap();
        let (key, hits) = (Key::new(&b"k"[..]), Hits::Take(1));
        let claims = vec![Claim { key, limit, hits, lease: None }];
        let group =
            Group { parts: vec![Part { quota: false, shadow: false, claims: 0..1 }], claims };
        let (waiter, answer) = Waiter::new((Instant::now() + period).into());
        (Call { group: Encoded::new(&group, Commit::Together).unwrap(), waiter }, answer)
    }

    #[test]
    fn reply_of_another_length_ends_the_connection() {
        let script = Script::with_server_time();
        let amend = Script::amend_with_server_time();
        let due = Instant::now() + Duration::from_secs(1);
        let replies: [(&[i64], bool); 4] =
            [(&[0, 5, 1, 7], true), (&[0, 5, 1], false), (&[0, 5, 1, 7, 8], false), (&[], false)];
        for (integers, fits) in replies {
            let mut pipeline = Pipeline::new(&script, &amend);
            let (mut out, (call, mut answer)) = (Vec::new(), call());
            assert!(pipeline.send(vec![call], &mut out, due.into(), due));
            let completed = pipeline.complete(Message::Integers(integers.to_vec()), &mut out);
            assert_eq!(completed.is_ok(), fits, "{integers:?}: {completed:?}");
            let answer = answer.try_recv().unwrap();
            assert_eq!(answer.is_ok(), fits, "{integers:?}: {answer:?}");
        }
    }
}
