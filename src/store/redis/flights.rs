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
            Message::Integers(integers) => (Reply::new(integers), None),
            Message::Integer(_) => (Err(StoreError::Protocol("a single integer".to_owned())), None),
            // It was a primary when we connected. Whoever is it now, the address may lead there.
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

/// The word that begins the text of an error.
fn code(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// How many counters held something.
fn emptied(message: Message) -> Result<u32, StoreError> {
    match message {
        Message::Integer(count) => u32::try_from(count)
            .map_err(|_| StoreError::Protocol(format!("{count} counters were emptied"))),
        Message::Integers(_) => Err(StoreError::Protocol("a list of integers".to_owned())),
        Message::Error(text) => Err(StoreError::Rejected(text)),
    }
}
