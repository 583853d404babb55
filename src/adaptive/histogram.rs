//! A histogram in quarters of an octave, of times and of costs.

/// Counts of values. Cell i has those above 2^((i-1)/4), up to 2^(i/4); the first has all up to 1,
/// the last all above the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Histogram<const CELLS: usize>([u64; CELLS]);

impl<const CELLS: usize> Default for Histogram<CELLS> {
    fn default() -> Self {
        Self([0; CELLS])
    }
}

impl<const CELLS: usize> Histogram<CELLS> {
    /// Counts a value so often.
    pub fn add(&mut self, value: f64, count: u64) {
        let cell = (value.log2() * 4.0).ceil().max(0.0) as usize;
        if let Some(cell) = self.0.get_mut(cell.min(CELLS.saturating_sub(1))) {
            *cell = cell.saturating_add(count);
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own = own.saturating_add(*other);
        }
    }

    /// Lets all that was counted count half, rounded down.
    pub fn halve(&mut self) {
        self.0.iter_mut().for_each(|count| *count /= 2);
    }

    /// The number of values.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// A value that so large a share of all does not exceed: the upper edge of its cell. None:
    /// there are no values.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let total = self.total();
        let rank = ((total as f64 * share) as u64).min(total.checked_sub(1)?);
        let mut below = 0_u64;
        let cell = self.0.iter().position(|count| {
            below = below.saturating_add(*count);
            below > rank
        });
        cell.map(|cell| 2_f64.powf(cell as f64 / 4.0))
    }

    /// The counts by cell.
    pub(super) const fn cells(&self) -> &[u64; CELLS] {
        &self.0
    }

    /// The count of a cell, to be read.
    pub(super) fn cell_mut(&mut self, cell: usize) -> Option<&mut u64> {
        self.0.get_mut(cell)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentile_is_the_upper_edge_of_its_cell() {
        let mut histogram = Histogram::<64>::default();
        assert_eq!(histogram.percentile(0.95), None);
        (1..=100).for_each(|value| histogram.add(f64::from(value), 1));
        for (share, exact) in [(0.5, 51.0), (0.95, 96.0), (1.0, 100.0)] {
            let told = histogram.percentile(share);
            assert!(told.is_some_and(|told| (1.0..1.2).contains(&(told / exact))), "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn edge_is_the_value_or_a_fifth_above(value in 1_u64..1 << 31) {
            let mut histogram = Histogram::<128>::default();
            histogram.add(value as f64, 1);
            let ratio = histogram.percentile(0.5).unwrap() / value as f64;
            prop_assert!((1.0 - 1e-9..1.19).contains(&ratio), "{}", ratio);
        }
    }
}
