//! Inputs near those of a corpus, and arbitrary ones.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The most edits of one input.
const MAX_EDITS: usize = 8;

/// Numbers at which readers differ, as text.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "+1",
    "00",
    "255",
    "4294967296",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "0.1",
];

/// An input; shown with its bytes escaped.
#[derive(Clone)]
pub struct Input(pub Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Mostly inputs of `corpus` with some edits.
pub fn inputs(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let edits = vec(edit(corpus.clone()), 1..=MAX_EDITS);
    let edited = (select(corpus), edits).prop_map(|(mut input, edits)| {
        for edit in edits {
            edit.apply(&mut input);
        }
        input
    });
    let arbitrary = vec(any::<u8>(), 0..200);
    prop_oneof![9 => edited, 1 => arbitrary].prop_map(Input)
}

/// A change of an input, at a place that its length gives.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Replace(Index, usize, Vec<u8>),
    Repeat(Index, usize, usize),
    Truncate(Index),
    /// Puts a part of another input there.
    Splice(Index, Vec<u8>, Index, usize),
}

fn edit(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let bytes = prop_oneof![
        vec(any::<u8>(), 0..5),
        select(&NUMBERS[..]).prop_map(|number| number.as_bytes().to_vec()),
        select(vec![0.0, -1.0, 0.5, 9_007_199_254_740_992.0, f64::NAN, f64::INFINITY])
            .prop_map(|number: f64| number.to_le_bytes().to_vec()),
    ];
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        3 => (at(), 0..9_usize, bytes).prop_map(|(at, cut, put)| Edit::Replace(at, cut, put)),
        1 => (at(), 1..30_usize, 1..6_usize).prop_map(|(at, n, times)| Edit::Repeat(at, n, times)),
        1 => at().prop_map(Edit::Truncate),
        1 => (at(), select(corpus), at(), 1..100_usize)
            .prop_map(|(at, other, from, length)| Edit::Splice(at, other, from, length)),
    ]
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>) {
        // A place may be the end.
        let place = |at: &Index, input: &[u8]| at.index(input.len() + 1);
        match self {
            Self::Flip(at, bit) => {
                let at = place(at, input);
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Self::Replace(at, cut, put) => {
                let at = place(at, input);
                input.splice(at..input.len().min(at + cut), put.iter().copied());
            }
            Self::Repeat(at, length, times) => {
                let at = place(at, input);
                let part = input[at..input.len().min(at + length)].repeat(*times);
                input.splice(at..at, part);
            }
            Self::Truncate(at) => input.truncate(place(at, input)),
            Self::Splice(at, other, from, length) => {
                let (at, from) = (place(at, input), place(from, other));
                let part = &other[from..other.len().min(from + length)];
                input.splice(at..at, part.iter().copied());
            }
        }
    }
}
