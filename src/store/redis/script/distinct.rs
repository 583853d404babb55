//! A list in which each string of bytes stands once, known by its number.

use std::hash::BuildHasher as _;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Strings of bytes, each with a number: 1, 2, ... in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    /// The strings, one after the other.
    bytes: Vec<u8>,
    /// The place of each in `bytes`.
    places: Vec<Range<usize>>,
    /// The numbers, found by their strings.
    numbers: HashTable<u16>,
    hasher: DefaultHashBuilder,
}

impl Distinct {
    /// The number of `string`, a new one if it has none yet; none if there are 65 535 already.
    pub(super) fn number_of(&mut self, string: &[u8]) -> Option<u16> {
        let Self { bytes, places, numbers, hasher } = self;
        let of = |number: u16| {
            let place = places.get(usize::from(number) - 1);
            place.map_or(&[][..], |place| at(bytes, place))
        };
        let hash = hasher.hash_one(string);
        if let Some(number) = numbers.find(hash, |number| of(*number) == string) {
            return Some(*number);
        }
        let number = u16::try_from(places.len() + 1).ok()?;
        numbers.insert_unique(hash, number, |number| hasher.hash_one(of(*number)));
        places.push(bytes.len()..bytes.len() + string.len());
        bytes.extend_from_slice(string);
        Some(number)
    }

    /// The strings in the order of their numbers.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.places.iter().map(|place| at(&self.bytes, place))
    }

    pub(super) const fn len(&self) -> usize {
        self.places.len()
    }

    /// The strings in the order of their numbers, one after the other.
    pub(super) fn joined(&self) -> &[u8] {
        &self.bytes
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.numbers.clear();
    }
}

fn at<'a>(bytes: &'a [u8], place: &Range<usize>) -> &'a [u8] {
    bytes.get(place.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_strings_once_and_says_when_there_are_too_many() {
        let mut strings = Distinct::default();
        for _ in 0..2 {
            for i in 1..=u16::MAX {
                assert_eq!(strings.number_of(i.to_string().as_bytes()), Some(i));
            }
        }
        assert_eq!((strings.number_of(b"another"), strings.number_of(b"7")), (None, Some(7)));
        assert_eq!(strings.iter().nth(41), Some(&b"42"[..]));
        assert!(strings.joined().starts_with(b"1234567891011"));
        strings.clear();
        assert_eq!((strings.len(), strings.number_of(b"7")), (0, Some(1)));
    }
}
