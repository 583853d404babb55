//! What was sent to Redis and not answered yet, in the order in which the answers will come.
//!
//! It forms commands and reads replies. When, and over which socket, is decided in `batch.rs`.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Call, Waiter};
use super::script::{Frame, Reply, Script};
use crate::redis::resp::{self, Message};

use crate::domain::Key;
use crate::store::StoreError;

/// Counters to empty.
#[derive(Debug)]
pub(super) struct Forget {
    pub(super) keys: Vec<Key>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<u32, StoreError>>,
}

/// The commands under way on one connection.
pub(super) struct Flights<'a> {
    script: &'a Script,
    under_way: VecDeque<Flight>,
    frames: usize,
    /// Empty, their memory kept for those to come.
    spare: Vec<(Box<Frame>, Vec<Waiter>)>,
}

struct Flight {
    cargo: Cargo,
    /// When the connection is given up if there is no answer.
    due: Instant,
}

enum Cargo {
    Frame {
        frame: Box<Frame>,
        waiters: Vec<Waiter>,
        /// Whether the text of the script went with it.
        with_text: bool,
    },
    Forget(oneshot::Sender<Result<u32, StoreError>>),
}

impl<'a> Flights<'a> {
    pub(super) fn new(script: &'a Script) -> Self {
        Self { script, under_way: VecDeque::new(), frames: 0, spare: Vec::new() }
    }

    /// How many calls of the script are under way.
    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    /// Writes one frame of `calls` to `out`; whether any of them could be sent.
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
        self.under_way
            .push_back(Flight { cargo: Cargo::Frame { frame, waiters, with_text: false }, due });
        true
    }

    /// Writes the command that empties counters to `out`, unless nobody waits for it any more.
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
        self.under_way.push_back(Flight { cargo: Cargo::Forget(answer), due });
    }

    /// Hands out the next answer, and gives the number of states that could not be read. A frame that was not run because
    /// the server does not know the script is written to `out` once more.
    ///
    /// # Errors
    /// Why the connection must be given up.
    pub(super) fn land(&mut self, message: Message, out: &mut Vec<u8>) -> Result<u64, String> {
        let Some(Flight { cargo, due }) = self.under_way.pop_front() else {
            return Err("Redis answered what was not asked".to_owned());
        };
        match (cargo, message) {
            (Cargo::Frame { frame, waiters, with_text: false }, Message::Error(text))
                if code(&text) == "NOSCRIPT" =>
            {
                self.script.call_with_text(&frame, out);
                let cargo = Cargo::Frame { frame, waiters, with_text: true };
                self.under_way.push_back(Flight { cargo, due });
                Ok(0)
            }
            (Cargo::Frame { frame, waiters, .. }, message) => {
                self.land_frame(frame, waiters, message)
            }
            (Cargo::Forget(answer), message) => {
                drop(answer.send(emptied(message)));
                Ok(0)
            }
        }
    }

    fn land_frame(
        &mut self,
        mut frame: Box<Frame>,
        mut waiters: Vec<Waiter>,
        message: Message,
    ) -> Result<u64, String> {
        self.frames -= 1;
        let (mut reply, end) = match message {
            Message::Integers(integers) => aligned(Reply::new(integers), frame.integers()),
            Message::Integer(_) | Message::Text(_) => misaligned("no list of integers"),
            // READONLY after a failover: reconnect, because the name may resolve to the new primary.
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

    /// Gives up the waiters that are late; whether a command is.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut late = false;
        for flight in &mut self.under_way {
            late |= flight.due <= now;
            if let Cargo::Frame { waiters, .. } = &mut flight.cargo {
                for waiter in waiters {
                    waiter.waits(now);
                }
            }
        }
        late
    }

    /// The earliest time at which there is something to give up.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let times = self.under_way.iter().flat_map(|Flight { cargo, due }| {
            let waiters = match cargo {
                Cargo::Frame { waiters, .. } => waiters.as_slice(),
                Cargo::Forget(_) => &[],
            };
            waiters.iter().filter_map(Waiter::due).chain([*due])
        });
        times.min()
    }

    /// Answers everyone with `error`.
    pub(super) fn fail(&mut self, error: &StoreError) {
        for flight in self.under_way.drain(..) {
            match flight.cargo {
                Cargo::Frame { waiters, .. } => {
                    for mut waiter in waiters {
                        waiter.answer(Err(error.clone()));
                    }
                }
                Cargo::Forget(answer) => drop(answer.send(Err(error.clone()))),
            }
        }
    }
}

/// A reply to groups of these counts. One of another length ends the connection: what it lacks or has too much of
/// would shift the answers of every later frame.
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

/// The word that begins the text of an error.
fn code(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// How many counters held something.
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
            [(&[0, 1, 7], true), (&[0, 1], false), (&[0, 1, 7, 8], false), (&[], false)];
        for (integers, fits) in replies {
            let mut flights = Flights::new(&script);
            let (mut out, (call, mut answer)) = (Vec::new(), call());
            assert!(flights.send(vec![call], &mut out, due));
            let landed = flights.land(Message::Integers(integers.to_vec()), &mut out);
            assert_eq!(landed.is_ok(), fits, "{integers:?}: {landed:?}");
            let answer = answer.try_recv().unwrap();
            assert_eq!(answer.is_ok(), fits, "{integers:?}: {answer:?}");
        }
    }
}
