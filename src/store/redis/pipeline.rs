//! The commands that were sent to Redis and not yet answered, in the order of their replies.
//!
//! This module encodes commands and interprets replies. `batch.rs` owns the socket and the timing.

mod answers;
mod command;
mod pending;

use std::collections::VecDeque;
use std::mem;

use tokio::time::Instant;

pub(super) use self::answers::code;
use self::answers::{aligned, answer_settled, applied, emptied, misaligned};
pub(super) use self::command::{Command, Forget, Settle};
use self::pending::{Payload, Pending};
use super::decided::{Decided, Refused, Undecided};
use super::queue::{Heard, Place, Queue, Taken, Waits};
use super::script::{AmendFrame, Frame, Reply, Script};
use crate::domain::Amendment;
use crate::redis::Address;
use crate::redis::cluster::redirect;
use crate::redis::login::Login;
use crate::redis::resp::{self, Message};
use crate::store::{Deadline, StoreError};

/// The commands in flight on one connection.
pub(super) struct Pipeline<'a> {
    script: &'a Script,
    amend: &'a Script,
    /// Redis knows the script that amends.
    amends: bool,
    /// The number of the connection.
    connection: u64,
    /// The address of a node of a cluster.
    node: Option<&'a Address>,
    pending: VecDeque<Pending>,
    frames: usize,
    claims: usize,
    /// Cleared frames, kept to reuse their memory.
    #[expect(clippy::vec_box, reason = "they go from here to `pending` and back")]
    spare: Vec<Box<Taken>>,
}

/// The effect of a reply.
#[derive(Debug, Default)]
pub(super) struct Completed {
    /// Of calls that decide: the time at which they were sent.
    pub(super) sent: Option<Instant>,
    /// The callers that the answers have reached.
    pub(super) heard: Heard,
    /// Redis has decided, and not refused.
    pub(super) decided: bool,
    /// States that could not be decoded.
    pub(super) unreadable: u64,
    /// Of a probe: true if Redis did not answer with an error.
    pub(super) probe: Option<bool>,
    /// The text of an error that is no decision.
    pub(super) error: Option<String>,
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
    /// The commands of the `connection`-th connection, to `node` if that belongs to a cluster.
    pub(super) const fn new(
        script: &'a Script,
        amend: &'a Script,
        connection: u64,
        node: Option<&'a Address>,
    ) -> Self {
        Self {
            script,
            amend,
            amends: false,
            connection,
            node,
            pending: VecDeque::new(),
            frames: 0,
            claims: 0,
            spare: Vec::new(),
        }
    }

    /// The number of frames in flight.
    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    /// The number of claims in flight.
    pub(super) const fn claims(&self) -> usize {
        self.claims
    }

    /// The number of commands in flight.
    pub(super) fn commands(&self) -> usize {
        self.pending.len()
    }

    /// Takes the calls of the next frame from `queue`, of up to `max_claims` claims.
    pub(super) fn take(&mut self, queue: &Queue, max_claims: usize) -> Option<Box<Taken>> {
        let spare = self.spare.pop();
        let mut taken = spare.unwrap_or_else(|| Box::new(queue.empty_frame()));
        queue.next_frame(max_claims, &mut taken);
        if taken.place.is_none() {
            self.spare.push(taken);
            return None;
        }
        Some(taken)
    }

    /// Writes a frame to `out`; it is overdue after `expected`.
    pub(super) fn send(
        &mut self,
        taken: Box<Taken>,
        out: &mut Vec<u8>,
        expected: Deadline,
        due: Instant,
    ) {
        if taken.place == Some(Place::Asking) {
            self.ask(out, due);
        }
        self.script.call(&taken.frame, out);
        self.frames += 1;
        self.claims += taken.claims;
        let (sent, with_text) = (Instant::now(), false);
        let payload = Payload::Frame { taken, sent, expected, with_text };
        self.pending.push_back(Pending { payload, due });
    }

    /// Makes the node run the next command although the slot of its keys is elsewhere.
    fn ask(&mut self, out: &mut Vec<u8>, due: Instant) {
        resp::put_command(out, &[b"ASKING"]);
        self.pending.push_back(Pending { payload: Payload::Asking, due });
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
        // The first on a connection has the text, so that Redis knows the script from then on.
        let with_text = !mem::replace(&mut self.amends, true);
        self.put_amend(&frame, with_text, out);
        self.pending.push_back(Pending { payload: Payload::Amend { frame, told, with_text }, due });
    }

    /// Writes calls that settle holds to `out`: of one slot together, up to
    /// [`MAX_AMENDMENTS`](super::script::MAX_AMENDMENTS) amendments in a call.
    pub(super) fn settle(&mut self, settles: Vec<Settle>, out: &mut Vec<u8>, due: Instant) {
        let of_slots = self.node.is_some();
        let together = |one: &Settle, next: &Settle| {
            let slot = |settle: &Settle| settle.settlement.guard.key.slot();
            !one.asking && !next.asking && (!of_slots || slot(one) == slot(next))
        };
        let mut waiting = settles.into_iter().peekable();
        while let Some(first) = waiting.next() {
            let (mut frame, mut last) = (Box::<AmendFrame>::default(), first);
            let mut waiters = Vec::new();
            let asking = last.asking;
            loop {
                let begins = frame.len();
                frame.settle(&last.settlement);
                let next = waiting.next_if(|next| {
                    let room = frame.has_room_for(&next.settlement);
                    room && together(&last, next)
                });
                waiters.push((begins, last.answer));
                let Some(next) = next else { break };
                last = next;
            }
            if asking {
                self.ask(out, due);
            }
            let with_text = !mem::replace(&mut self.amends, true);
            self.put_amend(&frame, with_text, out);
            let payload = Payload::Settle { frame, waiters, asking, with_text };
            self.pending.push_back(Pending { payload, due });
        }
    }

    fn put_amend(&self, frame: &AmendFrame, with_text: bool, out: &mut Vec<u8>) {
        if with_text {
            frame.write(b"EVAL", self.amend.text().as_bytes(), out);
        } else {
            frame.write(b"EVALSHA", self.amend.hash().as_bytes(), out);
        }
    }

    /// Writes the command that resets counters to `out`, unless its caller has given up.
    pub(super) fn forget(&mut self, forget: Forget, out: &mut Vec<u8>, due: Instant) {
        let Forget { keys, deadline, asking, answer } = forget;
        if answer.is_closed() || deadline <= Instant::now() {
            return;
        }
        if asking {
            self.ask(out, due);
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
            payload if unknown && payload.may_be_unknown() => {
                self.send_again(payload, due, out);
                Ok(Completed::default())
            }
            Payload::Frame { taken, sent, .. } => {
                self.frames -= 1;
                self.claims -= taken.claims;
                self.complete_frame(taken, sent, message)
            }
            Payload::Probe { .. } => {
                let well = matches!(message, Message::Integers(_));
                Ok(Completed { probe: Some(well), ..Completed::default() })
            }
            Payload::Forget(answer) => {
                drop(answer.send(emptied(message, self.node).map_err(Undecided::from)));
                Ok(Completed::default())
            }
            Payload::Amend { frame, told, .. } => {
                let told = told.then(|| applied(&frame, message));
                Ok(Completed { told, ..Completed::default() })
            }
            Payload::Settle { frame, waiters, .. } => {
                answer_settled(&frame, waiters, message, self.node);
                Ok(Completed::default())
            }
            // If ASKING is refused, the next command is answered with a redirection. The connection
            // keeps its user when Redis refuses the new one, and has logged why.
            Payload::Asking | Payload::LogIn => Ok(Completed::default()),
        }
    }

    /// Writes a command to `out` again, with the text of the script.
    fn send_again(&mut self, payload: Payload, due: Instant, out: &mut Vec<u8>) {
        let payload = match payload {
            Payload::Frame { taken, sent, expected, .. } => {
                if taken.place == Some(Place::Asking) {
                    self.ask(out, due);
                }
                self.script.call_with_text(&taken.frame, out);
                Payload::Frame { taken, sent, expected, with_text: true }
            }
            Payload::Amend { frame, told, .. } => {
                self.put_amend(&frame, true, out);
                Payload::Amend { frame, told, with_text: true }
            }
            Payload::Settle { frame, waiters, asking, .. } => {
                if asking {
                    self.ask(out, due);
                }
                self.put_amend(&frame, true, out);
                Payload::Settle { frame, waiters, asking, with_text: true }
            }
            Payload::Probe { .. } => {
                self.script.call_with_text(&Frame::default(), out);
                Payload::Probe { with_text: true }
            }
            other => other,
        };
        self.pending.push_back(Pending { payload, due });
    }

    fn complete_frame(
        &mut self,
        mut taken: Box<Taken>,
        sent: Instant,
        message: Message,
    ) -> Result<Completed, String> {
        let mut completed = Completed { sent: Some(sent), ..Completed::default() };
        let mut elsewhere = None;
        let (mut reply, end) = match message {
            Message::Integers(integers) => aligned(Reply::new(integers), taken.frame.integers()),
            Message::Integer(_) | Message::Text(_) => misaligned("no list of integers"),
            Message::Error(text) => {
                completed.error = Some(text.clone());
                elsewhere = self.node.and_then(|node| redirect(&text, node));
                // READONLY after a failover: reconnect, because the name may resolve to the new
                // primary.
                let end = (code(&text) == "READONLY").then(|| text.clone());
                (Err(StoreError::Rejected(text)), end)
            }
        };
        completed.unreadable = reply.as_ref().map_or(0, |reply| reply.unreadable);
        completed.decided = reply.is_ok();
        let mut counts = taken.frame.integers().iter();
        completed.heard = taken.waiters.answer(|| match &mut reply {
            Ok(reply) => Ok(Decided {
                integers: reply.next_group(counts.next().copied().unwrap_or_default()),
                at: reply.decided_at,
                connection: self.connection,
            }),
            Err(error) => Err(Refused { error: error.clone(), redirect: elsewhere.clone() }),
        });
        taken.clear();
        self.spare.push(taken);
        end.map_or(Ok(completed), Err)
    }

    /// Answers the waiters that are past their deadline.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        for command in &mut self.pending {
            expired.broken |= command.due <= now;
            if let Payload::Frame { taken, expected, .. } = &mut command.payload {
                match expected.extended(now) {
                    Some(extended) => *expected = extended,
                    None => expired.overdue |= expected.due() <= now,
                }
                expired.waits += taken.waiters.expire(now);
            }
        }
        expired
    }

    /// The earliest time at which a waiter, a command or, if `overdue` counts, a frame is late.
    pub(super) fn alarm(&self, overdue: bool) -> Option<Instant> {
        let times = self.pending.iter().flat_map(|Pending { payload, due }| {
            let (waiters, expected) = match payload {
                Payload::Frame { taken, expected, .. } => {
                    (taken.waiters.due(), overdue.then_some(expected.due()))
                }
                Payload::Asking
                | Payload::Probe { .. }
                | Payload::Forget(_)
                | Payload::LogIn
                | Payload::Settle { .. }
                | Payload::Amend { .. } => (None, None),
            };
            waiters.into_iter().chain(expected).chain([*due])
        });
        times.min()
    }

    /// Answers everyone with `error`.
    pub(super) fn fail(&mut self, error: &StoreError) {
        for pending in self.pending.drain(..) {
            match pending.payload {
                Payload::Frame { mut taken, .. } => {
                    taken.waiters.answer(|| Err(error.clone().into()));
                }
                Payload::Asking
                | Payload::Probe { .. }
                | Payload::Amend { .. }
                | Payload::LogIn => {}
                Payload::Forget(answer) => drop(answer.send(Err(error.clone().into()))),
                Payload::Settle { waiters, .. } => {
                    for (_, answer) in waiters {
                        drop(answer.send(Err(error.clone().into())));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
