//! The compact form of a counter: 24 bytes, plus the packed runs of a sliding window with several.
//!
//! The form never leaves the process. Several runs are packed into one allocation, little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | s * 16 + h: the widths in bytes of the longest step (s) and of the most hits (h) |
//! | 8 | time of the newest hit of the oldest run, in microseconds since 1970 |
//! | s + h per run, oldest first | microseconds since the previous run; hits |
//!
//! A run of at most 255 hits, at most 16 seconds after the previous one, takes 4 bytes instead of
//! the 16 of a [`Run`].

use crate::domain::concurrency::Slots;
use crate::domain::limit::Reach;
use crate::domain::sliding_window::{self, Run};
use crate::domain::{Counter, Timestamp, fixed_window, token_bucket};

/// The state of a counter that is not empty.
#[derive(Debug)]
pub(super) enum Held {
    /// A bucket without leases: `full_at`, `remainder`, `rate`, `reach`.
    TokenBucket(Timestamp, u32, u32, Reach),
    /// A bucket with leases, which is rare.
    Leased(Box<token_bucket::Bucket>),
    FixedWindow(fixed_window::WindowCount),
    /// A sliding window with one run.
    Run(Run),
    /// A sliding window with several runs, packed.
    Runs(Box<[u8]>),
    /// The holds on a concurrency limit.
    Concurrency(Box<Slots>),
}

/// Scratch buffers to pack and unpack windows without an allocation. Empty between two steps.
#[derive(Debug, Default)]
pub(super) struct Spare {
    runs: Vec<Run>,
    bytes: Vec<u8>,
}

impl Spare {
    /// Keeps the larger of two buffers.
    fn keep(&mut self, mut runs: Vec<Run>) {
        if runs.capacity() > self.runs.capacity() {
            runs.clear();
            self.runs = runs;
        }
    }
}

impl Held {
    /// Packs `counter`; `None` if it is empty.
    pub(super) fn new(counter: Counter, spare: &mut Spare) -> Option<Self> {
        Some(match counter {
            Counter::Empty => return None,
            Counter::TokenBucket(state) if state.outstanding.is_some() => {
                Self::Leased(Box::new(state))
            }
            Counter::TokenBucket(state) => {
                Self::TokenBucket(state.full_at, state.remainder, state.rate, state.reach)
            }
            Counter::FixedWindow(state) => Self::FixedWindow(state),
            Counter::Concurrency(state) => Self::Concurrency(Box::new(state)),
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

    /// The bytes that it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::TokenBucket(..) | Self::FixedWindow(_) | Self::Run(_) => 0,
            Self::Leased(_) => size_of::<token_bucket::Bucket>(),
            Self::Runs(bytes) => bytes.len(),
            Self::Concurrency(slots) => size_of::<Slots>() + slots.heap_bytes(),
        }
    }

    /// Replaces the content by `counter`, in place if the size is equal. Returns false if `counter`
    /// is empty.
    pub(super) fn replace(&mut self, counter: Counter, spare: &mut Spare) -> bool {
        let counter = match (&mut *self, counter) {
            (Self::Concurrency(held), Counter::Concurrency(state)) => {
                **held = state;
                return true;
            }
            (_, counter) => counter,
        };
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

    /// Unpacks the counter for a step, whose result [replaces](Self::replace) it. Holds are moved
    /// out, all else stays.
    pub(super) fn counter(&mut self, spare: &mut Spare) -> Counter {
        match self {
            &mut Self::TokenBucket(full_at, remainder, rate, reach) => {
                Counter::TokenBucket(token_bucket::Bucket {
                    full_at,
                    remainder,
                    rate,
                    reach,
                    outstanding: None,
                })
            }
            Self::Leased(state) => Counter::TokenBucket((**state).clone()),
            Self::FixedWindow(state) => Counter::FixedWindow(*state),
            Self::Concurrency(slots) => Counter::Concurrency(std::mem::take(&mut **slots)),
            Self::Run(run) => {
                let mut runs = std::mem::take(&mut spare.runs);
                runs.push(*run);
                Counter::SlidingWindow(sliding_window::WindowLog { runs })
            }
            Self::Runs(bytes) => {
                let mut runs = std::mem::take(&mut spare.runs);
                unpack(bytes, &mut spare.bytes, &mut runs);
                Counter::SlidingWindow(sliding_window::WindowLog { runs })
            }
        }
    }
}

/// Length of the header in bytes.
const HEAD: usize = 9;
/// Every number is read and written as this many bytes, regardless of its width. Excess bytes are
/// masked on read, and overwritten by the next number on write.
const WIDE: usize = size_of::<u64>();

/// Packs `runs` into `bytes`, replacing its content.
fn pack<'a>(runs: &[Run], bytes: &'a mut Vec<u8>) -> &'a [u8] {
    let first = runs.first().map_or(0, |run| run.newest.as_micros());
    let (mut steps, mut hits, mut before) = (0, 0, first);
    for run in runs {
        let newest = run.newest.as_micros();
        steps |= newest.wrapping_sub(before);
        hits |= run.hits;
        before = newest;
    }
    let (step, stride) = (width(steps), width(steps) + width(hits).max(1));
    let len = HEAD + runs.len() * stride;
    bytes.clear();
    bytes.push((step * 16 + stride - step) as u8);
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.resize(len + WIDE, 0);
    before = first;
    for (i, run) in runs.iter().enumerate() {
        // Wraps if runs are out of order; `unpack` wraps back.
        let newest = run.newest.as_micros();
        write(bytes, HEAD + i * stride, newest.wrapping_sub(before));
        write(bytes, HEAD + i * stride + step, run.hits);
        before = newest;
    }
    bytes.truncate(len);
    bytes
}

/// Appends the runs in `packed` to `runs`; `bytes` is a scratch buffer.
fn unpack(packed: &[u8], bytes: &mut Vec<u8>, runs: &mut Vec<Run>) {
    let Some((head, body)) = packed.split_first_chunk::<HEAD>() else { return };
    let [widths, first @ ..] = *head;
    let (step, hits) = (usize::from(widths >> 4), usize::from(widths & 15));
    bytes.clear();
    bytes.extend_from_slice(body);
    bytes.resize(body.len() + WIDE, 0);
    let mut newest = u64::from_le_bytes(first);
    let stride = (step + hits).max(1);
    runs.extend((0..body.len() / stride).map(|i| {
        newest = newest.wrapping_add(read(bytes, i * stride) & mask(step));
        let newest = Timestamp::from_micros(newest);
        Run { newest, hits: read(bytes, i * stride + step) & mask(hits) }
    }));
}

fn write(bytes: &mut [u8], at: usize, number: u64) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = number.to_le_bytes();
    }
}

fn read(bytes: &[u8], at: usize) -> u64 {
    let place = bytes.get(at..).and_then(<[u8]>::first_chunk);
    place.map_or(0, |place| u64::from_le_bytes(*place))
}

/// The width of `number` in bytes.
const fn width(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()).div_ceil(8) as usize
}

/// The mask of the lowest `bytes` bytes of a number.
const fn mask(bytes: usize) -> u64 {
    if bytes < 8 { (1 << (8 * bytes)) - 1 } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::concurrency::Slot;

    fn window(runs: &[(u64, u64)]) -> Counter {
        let runs = runs
            .iter()
            .map(|&(newest, hits)| Run { newest: Timestamp::from_micros(newest), hits })
            .collect();
        Counter::SlidingWindow(sliding_window::WindowLog { runs })
    }

    fn counters() -> impl Strategy<Value = Counter> {
        let number = || prop_oneof![any::<u64>(), 0..300_u64, Just(u64::MAX)];
        prop_oneof![
            Just(Counter::Empty),
            (any::<u64>(), any::<[u32; 3]>(), any::<bool>()).prop_map(
                |(full_at, [remainder, rate, reach], leased)| {
                    let outstanding = leased.then(Box::default);
                    Counter::TokenBucket(token_bucket::Bucket {
                        full_at: Timestamp::from_micros(full_at),
                        remainder,
                        rate,
                        reach: Reach::from_bits(reach),
                        outstanding,
                    })
                }
            ),
            (any::<u64>(), any::<u64>()).prop_map(|(start, count)| {
                let start = Timestamp::from_micros(start);
                Counter::FixedWindow(fixed_window::WindowCount { start, count })
            }),
            vec((number(), number()), 1..15).prop_map(|runs| window(&runs)),
            vec((number(), number()), 1..9).prop_map(|slots| {
                let slot = |(until, id)| Slot { until: Timestamp::from_micros(until), id };
                Counter::Concurrency(slots.into_iter().map(slot).collect())
            }),
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
                let found = held.as_mut().map(|held| held.counter(&mut spare)).unwrap_or_default();
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
        assert_eq!(bytes.len(), HEAD + 11 * 4);
        assert_eq!(size_of::<Held>(), 24);
    }
}
