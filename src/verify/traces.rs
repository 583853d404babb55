//! The traces of many keys.

use std::time::Duration;

use hashbrown::HashMap;

use super::line::{Answer, Line};
use super::trace::{Held, Trace};

/// The traces of many keys, in the order in which the keys were met.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    index: HashMap<Box<str>, usize>,
    keys: Vec<(Box<str>, Trace)>,
    clock_error: Duration,
    ignores_degraded: bool,
}

impl Traces {
    /// No trace yet. Clocks of callers may be off by `clock_error`; `ignores_degraded` leaves out
    /// what was decided without the store.
    pub fn new(clock_error: Duration, ignores_degraded: bool) -> Self {
        Self { clock_error, ignores_degraded, ..Self::default() }
    }

    /// Adds a call. Returns true if its key is new.
    pub fn push(&mut self, line: &Line<'_>) -> bool {
        let known = self.index.get(line.key).copied();
        let position = known.unwrap_or(self.keys.len());
        if known.is_none() {
            self.index.insert(line.key.into(), position);
            self.keys.push((line.key.into(), Trace::default()));
        }
        if let Some((_, trace)) = self.keys.get_mut(position)
            && !(line.degraded && self.ignores_degraded)
        {
            let call = line.call.widened(self.clock_error);
            if let Some(settled) = line.settled {
                let settled = settled.widened(self.clock_error);
                trace.held.push(Held { call, settled });
                return known.is_none();
            }
            let calls = match line.answer {
                Answer::Admitted => &mut trace.admitted,
                Answer::Refused => &mut trace.refused,
                Answer::Refunded => &mut trace.refunded,
            };
            calls.push(call);
        }
        known.is_none()
    }

    /// The keys and their traces.
    pub fn into_vec(self) -> Vec<(Box<str>, Trace)> {
        self.keys
    }
}
