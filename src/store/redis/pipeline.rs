//! The commands that were sent to Redis and not yet answered, in the order of their replies.
//!
//! This module encodes commands and interprets replies. `batch.rs` owns the socket and the timing.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Call, Waiter};
use super::script::{Frame, Reply, Script};
use crate::redis::login::Login;
use crate::redis::resp::{self, Message};

use crate::domain::Key;
use crate::store::StoreError;

/// A reset of counters.
#[derive(Debug)]
pub(super) struct Forget {
    pub(super) keys: Vec<Key>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<u32, StoreError>>,
}

/// The commands in pending on one connection.
pub(super) struct Pipeline<'a> {
    script: &'a Script,
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
        /// True if the frame was sent with the text of the script (EVAL).
        with_text: bool,
    },
    Forget(oneshot::Sender<Result<u32, StoreError>>),
    LogIn,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(script: &'a Script) -> Self {
        Self { script, pending: VecDeque::new(), frames: 0, spare: Vec::new() }
    }

    /// The number of calls of the script in pending.
    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    /// Writes one frame of `calls` to `out`. Returns false if none of them could be encoded.
    pub(super) fn send(&mut self, calls: Vec<Call>, out: &mut Vec<u8>, due: Instant) -> bool {
        let (mut frame, mut waiters) = self.spare.pop().unwrap_or_default();
        for Call { group, mut waiter } in calls {
            match frame.push(&group) {
                Ok(()) => waiters.push(waiter),
                Err(error) => waiter.answer(Err(error)),
            }
        }
        if waiters.is_empty() {
            return false;
        }
        self.script.call(&frame, out);
        self.frames += 1;
        self.pending.push_back(Pending {
            payload: Payload::Frame { frame, waiters, with_text: false },
            due,
        });
        true
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

    /// Distributes the next reply, and returns the number of states that could not be decoded.
    /// After NOSCRIPT, writes the frame to `out` again, with the text of the script.
    ///
    /// # Errors
    /// Fails with the reason if the connection must be closed.
    pub(super) fn complete(&mut self, message: Message, out: &mut Vec<u8>) -> Result<u64, String> {
        let Some(Pending { payload, due }) = self.pending.pop_front() else {
            return Err("Redis answered what was not asked".to_owned());
        };
        match (payload, message) {
            (Payload::Frame { frame, waiters, with_text: false }, Message::Error(text))
                if code(&text) == "NOSCRIPT" =>
            {
                self.script.call_with_text(&frame, out);
                let payload = Payload::Frame { frame, waiters, with_text: true };
                self.pending.push_back(Pending { payload, due });
                Ok(0)
            }
            (Payload::Frame { frame, waiters, .. }, message) => {
                self.complete_frame(frame, waiters, message)
            }
            (Payload::Forget(answer), message) => {
                drop(answer.send(emptied(message)));
                Ok(0)
            }
            // The connection keeps its user when Redis refuses the new one, and has logged why.
            (Payload::LogIn, _) => Ok(0),
        }
    }

    fn complete_frame(
        &mut self,
        mut frame: Box<Frame>,
        mut waiters: Vec<Waiter>,
        message: Message,
    ) -> Result<u64, String> {
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
        for (waiter, integers) in waiters.iter_mut().zip(frame.integers()) {
            let answer = match &mut reply {
                Ok(reply) => Ok(reply.next_group(*integers)),
                Err(error) => Err(error.clone()),
            };
            waiter.answer(answer);
        }
        frame.clear();
        waiters.clear();
        self.spare.push((frame, waiters));
        end.map_or(Ok(unreadable), Err)
    }

    /// Answers the waiters that are past their deadline. Returns true if Redis is late with a
    /// reply.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut late = false;
        for command in &mut self.pending {
            late |= command.due <= now;
            if let Payload::Frame { waiters, .. } = &mut command.payload {
                for waiter in waiters {
                    waiter.is_live(now);
                }
            }
        }
        late
    }

    /// The earliest deadline of a waiter or a command.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let times = self.pending.iter().flat_map(|Pending { payload, due }| {
            let waiters = match payload {
                Payload::Frame { waiters, .. } => waiters.as_slice(),
                Payload::Forget(_) | Payload::LogIn => &[],
            };
            waiters.iter().filter_map(Waiter::due).chain([*due])
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
                Payload::Forget(answer) => drop(answer.send(Err(error.clone()))),
                Payload::LogIn => {}
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

    use super::*;
    use crate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Limit, Part};
    use crate::store::redis::script::Encoded;

    fn call() -> (Call, oneshot::Receiver<Result<super::super::script::Integers, StoreError>>) {
        let period = Duration::from_secs(1);
        let limit = Limit::new(9, period, Algorithm::FixedWindow, Charge::Admitted).unwrap();
        let (key, hits) = (Key::new(&b"k"[..]), Hits::Take(1));
        let claims = vec![Claim { key, limit, hits, lease: None }];
        let group =
            Group { parts: vec![Part { quota: false, shadow: false, claims: 0..1 }], claims };
        let (waiter, answer) = Waiter::new(Instant::now() + period);
        (Call { group: Encoded::new(&group, Commit::Together).unwrap(), waiter }, answer)
    }

    #[test]
    fn reply_of_another_length_ends_the_connection() {
        let script = Script::with_server_time();
        let due = Instant::now() + Duration::from_secs(1);
        let replies: [(&[i64], bool); 4] =
            [(&[0, 5, 1, 7], true), (&[0, 5, 1], false), (&[0, 5, 1, 7, 8], false), (&[], false)];
        for (integers, fits) in replies {
            let mut pipeline = Pipeline::new(&script);
            let (mut out, (call, mut answer)) = (Vec::new(), call());
            assert!(pipeline.send(vec![call], &mut out, due));
            let completed = pipeline.complete(Message::Integers(integers.to_vec()), &mut out);
            assert_eq!(completed.is_ok(), fits, "{integers:?}: {completed:?}");
            let answer = answer.try_recv().unwrap();
            assert_eq!(answer.is_ok(), fits, "{integers:?}: {answer:?}");
        }
    }
}
