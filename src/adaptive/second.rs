//! What one or more replicas saw of a rule in a second, or in several.

use std::time::Duration;

use super::histogram::Histogram;
use super::terms::Terms;

/// Counts of requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Second {
    /// Admitted.
    pub admitted: u64,
    /// Ended, and reported.
    pub ended: u64,
    /// Of those that ended, failed.
    pub errors: u64,
    /// Of those that ended, slower than the target.
    pub slow: u64,
    /// Of those that ended, well within the target.
    pub quick: u64,
    /// Ended without a word about the upstream: none saw them, or their clients left early.
    pub left: u64,
    /// The sum of the times, in microseconds.
    pub micros: u64,
    /// The times in milliseconds of those that ended, as far as they are known; the last cell has
    /// all above 46 s.
    pub times: Histogram<64>,
}

impl Second {
    /// Counts the ends of `count` requests alike. `time`: that of the upstream, if it is known. A
    /// failure without a time was slow.
    pub fn end(
        &mut self,
        count: u64,
        time: Option<Duration>,
        failed: bool,
        target: Option<Duration>,
    ) {
        self.ended = self.ended.saturating_add(count);
        if failed {
            self.errors = self.errors.saturating_add(count);
        }
        if let Some(time) = time {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            self.micros = self.micros.saturating_add(micros.saturating_mul(count));
            self.times.add(time.as_secs_f64() * 1e3, count);
        }
        let Some(target) = target else { return };
        if time.map_or(failed, |time| time > target) {
            self.slow = self.slow.saturating_add(count);
        } else if time.is_some_and(|time| Terms::is_quick(target, time)) {
            self.quick = self.quick.saturating_add(count);
        }
    }

    /// Adds the counts of another replica, or of another second.
    pub fn merge(&mut self, other: &Self) {
        let pairs = self.counts_mut().into_iter().zip(other.counts());
        pairs.for_each(|(own, other)| *own = own.saturating_add(other));
        self.times.merge(&other.times);
    }

    /// True if nothing was seen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The requests that reached the upstream, as far as it is known.
    pub(super) const fn started(&self) -> u64 {
        self.admitted.saturating_sub(self.left)
    }

    /// The mean of the times; zero if none is known.
    pub(super) fn mean(&self) -> f64 {
        let known = self.times.total();
        if known == 0 { 0.0 } else { self.micros as f64 / 1e6 / known as f64 }
    }

    const fn counts(&self) -> [u64; 7] {
        let Self { admitted, ended, errors, slow, quick, left, micros, times: _ } = *self;
        [admitted, ended, errors, slow, quick, left, micros]
    }

    const fn counts_mut(&mut self) -> [&mut u64; 7] {
        let Self { admitted, ended, errors, slow, quick, left, micros, times: _ } = self;
        [admitted, ended, errors, slow, quick, left, micros]
    }

    /// Appends its short form: the counts as varints, then the number of cells that are not empty,
    /// each with its number.
    pub fn write(&self, to: &mut Vec<u8>) {
        self.counts().into_iter().for_each(|count| put_varint(to, count));
        let cells = self.times.cells().iter().enumerate().filter(|(_, count)| **count > 0);
        to.push(cells.clone().count() as u8);
        for (cell, count) in cells {
            to.push(cell as u8);
            put_varint(to, *count);
        }
    }

    /// Takes what [`write`](Self::write) wrote from the front of `bytes`; none: it is not there.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut second = Self::default();
        for count in second.counts_mut() {
            *count = varint(bytes)?;
        }
        for _ in 0..byte(bytes)? {
            let cell = usize::from(byte(bytes)?);
            *second.times.cell_mut(cell)? = varint(bytes)?;
        }
        Some(second)
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = byte(bytes)?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_told_in_milliseconds() {
        let edge = |millis| {
            let mut second = Second::default();
            second.end(1, Some(Duration::from_millis(millis)), false, None);
            second.times.percentile(0.5).unwrap()
        };
        assert_eq!((edge(0), edge(256)), (1.0, 256.0));
        assert!(edge(3_600_000) > 46_000.0);
    }

    fn seconds() -> impl Strategy<Value = Second> {
        let end = (1..1_000_u64, proptest::option::of(0..100_000_u64), any::<bool>());
        (proptest::collection::vec(end, 0..20), any::<u64>()).prop_map(|(ends, admitted)| {
            let mut second = Second { admitted, left: admitted / 3, ..Second::default() };
            for (count, millis, failed) in ends {
                let target = Some(Duration::from_millis(300));
                second.end(count, millis.map(Duration::from_millis), failed, target);
            }
            second
        })
    }

    proptest! {
        #[test]
        fn any_second_is_read_back(second in seconds(), other in seconds()) {
            let mut bytes = Vec::new();
            second.write(&mut bytes);
            other.write(&mut bytes);
            let mut left = &bytes[..];
            prop_assert_eq!(Second::read(&mut left), Some(second));
            prop_assert_eq!(Second::read(&mut left), Some(other));
            prop_assert!(left.is_empty());
        }

        #[test]
        fn any_bytes_are_a_second_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut left = &bytes[..];
            while Second::read(&mut left).is_some() {}
            prop_assert!(left.len() <= bytes.len());
        }
    }
}
