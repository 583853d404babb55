//! A counter as the memory store holds it: 24 bytes, and for a window of several runs as many more as they need.
//!
//! Not a format: nothing here leaves the process. Several runs are one allocation of just their length, the oldest first:
//! per run the microseconds since the run before (for the oldest: since 1970) and the hits, each as a number of seven bits
//! per byte, the lowest first, the high bit set in all bytes but the last. A run of fewer than 128 hits that begins
//! less than four minutes after the run before takes five bytes, where a [`Run`] takes sixteen.

use crate::domain::sliding_window::{self, Run};
use crate::domain::{Counter, fixed_window, token_bucket};

/// The state of a counter that is not empty.
#[derive(Debug)]
pub(super) enum Held {
    TokenBucket(token_bucket::State),
    FixedWindow(fixed_window::State),
    /// A sliding window of one run.
    Run(Run),
    /// A sliding window of several, packed.
    Runs(Box<[u8]>),
}

/// Room to unpack and to pack a window without an allocation; holds nothing between two steps.
#[derive(Debug, Default)]
pub(super) struct Spare {
    runs: Vec<Run>,
    bytes: Vec<u8>,
}

impl Spare {
    /// Keeps the larger room.
    fn keep(&mut self, mut runs: Vec<Run>) {
        if runs.capacity() > self.runs.capacity() {
            runs.clear();
            self.runs = runs;
        }
    }
}

impl Held {
    /// Holds `counter`, unless it is empty.
    pub(super) fn new(counter: Counter, spare: &mut Spare) -> Option<Self> {
        Some(match counter {
            Counter::Empty => return None,
            Counter::TokenBucket(state) => Self::TokenBucket(state),
            Counter::FixedWindow(state) => Self::FixedWindow(state),
            Counter::SlidingWindow(state) => {
                let held = if let &[run] = state.runs.as_slice() {
                    Self::Run(run)
                } else {
                    Self::Runs(pack(&state.runs, &mut spare.bytes).into())
                };
                spare.keep(state.runs);
                held
            }
        })
    }

    /// Holds `counter` from now on, where the old one was if it takes as much room. False: it is empty.
    pub(super) fn replace(&mut self, counter: Counter, spare: &mut Spare) -> bool {
        if let (Self::Runs(bytes), Counter::SlidingWindow(state)) = (&mut *self, &counter)
            && state.runs.len() > 1
        {
            let packed = pack(&state.runs, &mut spare.bytes);
            if packed.len() == bytes.len() {
                bytes.copy_from_slice(packed);
            } else {
                *bytes = packed.into();
            }
            if let Counter::SlidingWindow(state) = counter {
                spare.keep(state.runs);
            }
            return true;
        }
        match Self::new(counter, spare) {
            Some(held) => *self = held,
            None => return false,
        }
        true
    }

    /// The counter, for a step; it stays held as it is.
    pub(super) fn counter(&self, spare: &mut Spare) -> Counter {
        match self {
            Self::TokenBucket(state) => Counter::TokenBucket(*state),
            Self::FixedWindow(state) => Counter::FixedWindow(*state),
            Self::Run(run) => {
                let mut runs = std::mem::take(&mut spare.runs);
                runs.push(*run);
                Counter::SlidingWindow(sliding_window::State { runs })
            }
            Self::Runs(bytes) => {
                let mut runs = std::mem::take(&mut spare.runs);
                unpack(bytes, &mut runs);
                Counter::SlidingWindow(sliding_window::State { runs })
            }
        }
    }
}

/// Writes `runs` into `bytes`, over what was in there.
fn pack<'a>(runs: &[Run], bytes: &'a mut Vec<u8>) -> &'a [u8] {
    bytes.clear();
    let mut before = 0;
    for run in runs {
        // Wraps for runs out of order, and `unpack` wraps back.
        write(run.newest.wrapping_sub(before), bytes);
        write(run.hits, bytes);
        before = run.newest;
    }
    bytes
}

fn write(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends the runs in `bytes` to `runs`.
fn unpack(mut bytes: &[u8], runs: &mut Vec<Run>) {
    let mut newest = 0_u64;
    while !bytes.is_empty() {
        newest = newest.wrapping_add(read(&mut bytes));
        runs.push(Run { newest, hits: read(&mut bytes) });
    }
}

fn read(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((&byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
        shift += 7;
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn window(runs: &[(u64, u64)]) -> Counter {
        let runs = runs.iter().map(|&(newest, hits)| Run { newest, hits }).collect();
        Counter::SlidingWindow(sliding_window::State { runs })
    }

    fn counters() -> impl Strategy<Value = Counter> {
        let number = || prop_oneof![any::<u64>(), 0..300_u64, Just(u64::MAX)];
        prop_oneof![
            Just(Counter::Empty),
            (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(full_at, remainder, rate)| {
                Counter::TokenBucket(token_bucket::State { full_at, remainder, rate })
            }),
            (any::<u64>(), any::<u64>()).prop_map(|(start, count)| {
                Counter::FixedWindow(fixed_window::State { start, count })
            }),
            vec((number(), number()), 1..15).prop_map(|runs| window(&runs)),
        ]
    }

    proptest! {
        #[test]
        fn holds_each_counter_exactly_and_whatever_was_held_before(
            counters in vec(counters(), 1..10)
        ) {
            let mut spare = Spare::default();
            let mut held = None;
            for counter in counters {
                held = match held {
                    None => Held::new(counter.clone(), &mut spare),
                    Some(mut held) => {
                        Held::replace(&mut held, counter.clone(), &mut spare).then_some(held)
                    }
                };
                let found = held.as_ref().map(|held| held.counter(&mut spare)).unwrap_or_default();
                prop_assert_eq!(found, counter);
            }
        }
    }

    #[test]
    fn full_window_of_ten_slots_takes_little_room() {
        let start = 1_700_000_000_000_000;
        let runs: Vec<(u64, u64)> = (0..11).map(|i| (start + i * 6_000_000, 100)).collect();
        let Some(Held::Runs(bytes)) = Held::new(window(&runs), &mut Spare::default()) else {
            panic!("several runs are packed")
        };
        assert_eq!(bytes.len(), 8 + 1 + 10 * 5);
        assert_eq!(size_of::<Held>(), 24);
    }
}
