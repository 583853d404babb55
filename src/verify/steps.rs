//! A step function of time, and its maximum over a span.
//!
//! Maxima of blocks are kept in a segment tree, so that the memory is that of the steps.

/// The number of steps in a block.
const BLOCK: usize = 32;

/// A step function: `values[i]` from `times[i]` on.
#[derive(Debug)]
pub(super) struct Steps<T> {
    times: Vec<i64>,
    values: Vec<T>,
    /// The maxima of blocks from `blocks.len() / 2` on; before them, at `i`, that of `2 * i` and
    /// `2 * i + 1`.
    blocks: Vec<Option<T>>,
}

impl<T: Copy + Ord> Steps<T> {
    /// Steps in order of time. Of several at one time, the last counts.
    pub(super) fn new(steps: impl IntoIterator<Item = (i64, T)>) -> Self {
        let (mut times, mut values): (Vec<i64>, Vec<T>) = (Vec::new(), Vec::new());
        for (time, value) in steps {
            match values.last_mut() {
                Some(last) if times.last() == Some(&time) => *last = value,
                _ => {
                    times.push(time);
                    values.push(value);
                }
            }
        }
        let blocks = maxima(&values);
        Self { times, values, blocks }
    }

    /// The value in force at `time`; none before the first step.
    pub(super) fn at(&self, time: i64) -> Option<T> {
        let count = self.times.partition_point(|at| *at <= time);
        self.values.get(count.checked_sub(1)?).copied()
    }

    /// The highest value of the steps in `from..=to`; none if there is no step.
    pub(super) fn highest(&self, from: i64, to: i64) -> Option<T> {
        let first = self.times.partition_point(|at| *at < from);
        let end = self.times.partition_point(|at| *at <= to);
        let (low, high) = (first.div_ceil(BLOCK), end / BLOCK);
        if low >= high {
            return self.highest_of(first, end);
        }
        let ends = [
            self.highest_of(first, low * BLOCK),
            self.highest_of(high * BLOCK, end),
            self.highest_block(low, high),
        ];
        ends.into_iter().flatten().max()
    }

    fn highest_of(&self, first: usize, end: usize) -> Option<T> {
        self.values.get(first..end).and_then(|values| values.iter().max()).copied()
    }

    /// The maximum of the blocks `low..high`.
    fn highest_block(&self, low: usize, high: usize) -> Option<T> {
        let leaves = self.blocks.len() / 2;
        let block = |index: usize| self.blocks.get(index).copied().flatten();
        let (mut low, mut high, mut highest) = (low + leaves, high + leaves, None);
        while low < high {
            if low % 2 == 1 {
                highest = highest.max(block(low));
                low += 1;
            }
            if high % 2 == 1 {
                high -= 1;
                highest = highest.max(block(high));
            }
            (low, high) = (low / 2, high / 2);
        }
        highest
    }
}

fn maxima<T: Copy + Ord>(values: &[T]) -> Vec<Option<T>> {
    let leaves = values.len().div_ceil(BLOCK);
    let mut blocks: Vec<Option<T>> = vec![None; leaves];
    blocks.extend(values.chunks(BLOCK).map(|block| block.iter().max().copied()));
    for index in (1..leaves).rev() {
        let child = |index: usize| blocks.get(index).copied().flatten();
        let highest = child(2 * index).max(child(2 * index + 1));
        if let Some(block) = blocks.get_mut(index) {
            *block = highest;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maximum_of_every_span_is_that_of_a_scan() {
        let mut random = fastrand::Rng::with_seed(1);
        for length in [0, 1, 31, 32, 33, 64, 200] {
            let steps: Vec<(i64, u32)> = (0..length).map(|i| (2 * i, random.u32(..50))).collect();
            let function = Steps::new(steps.iter().copied());
            for from in -1..=2 * length {
                let before = steps.iter().rev().find(|(at, _)| *at <= from);
                assert_eq!(function.at(from), before.map(|(_, value)| *value));
                for to in from..=2 * length {
                    let within = steps.iter().filter(|(at, _)| (from..=to).contains(at));
                    let highest = within.map(|(_, value)| *value).max();
                    assert_eq!(function.highest(from, to), highest, "{length}: {from}..={to}");
                }
            }
        }
    }
}
