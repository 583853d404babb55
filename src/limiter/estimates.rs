//! Estimates that are learned: the cost that most requests under a limit stay within.
//!
//! Each process learns from the settlements that reach it, so it needs no exchange with others: any
//! of them sees a fair sample. Counted per thread; a decision reads one number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::policy::{Estimate, Rule};
use crate::telemetry::sharded::PerThread;

/// Cells of a quarter of an octave each, for costs up to 2^32.
const CELLS: usize = 4 * 32;

/// The fewest costs from which something is learned.
const FEWEST: u64 = 50;

/// Costs of a thread, beyond which older ones count half.
const MOST: u32 = 5_000;

/// The estimate follows each so many costs of a thread.
const EACH: u32 = 8;

/// The costs of requests under one limit.
#[derive(Debug)]
pub(super) struct Learned {
    costs: PerThread<Mutex<Costs>>,
    /// The share of costs, in percent, that the estimate covers.
    percentile: AtomicU8,
    /// 0: nothing is known yet.
    estimate: AtomicU64,
}

#[derive(Clone, Debug)]
struct Costs {
    cells: [u32; CELLS],
    total: u32,
    seen: u32,
}

impl Default for Costs {
    fn default() -> Self {
        Self { cells: [0; CELLS], total: 0, seen: 0 }
    }
}

impl Costs {
    fn add(&mut self, cost: u64) {
        if let Some(cell) = self.cells.get_mut(cell(cost)) {
            *cell += 1;
        }
        self.total += 1;
        self.seen = self.seen.wrapping_add(1);
        if self.total >= MOST {
            self.cells.iter_mut().for_each(|cell| *cell /= 2);
            self.total = self.cells.iter().sum();
        }
    }
}

impl Learned {
    fn new(percentile: u8) -> Self {
        let (percentile, estimate) = (AtomicU8::new(percentile), AtomicU64::new(0));
        Self { costs: PerThread::new(Mutex::default), percentile, estimate }
    }

    /// The hits that the requests of its percentile cost at most; `None`: too few have ended.
    pub(super) fn estimate(&self) -> Option<u64> {
        Some(self.estimate.load(Ordering::Relaxed)).filter(|hits| *hits > 0)
    }

    /// A request has cost so many hits.
    pub(super) fn note(&self, cost: u64) {
        let is_due = {
            let mut own = self.costs.own().lock();
            own.add(cost);
            own.seen.is_multiple_of(EACH)
        };
        if is_due || self.estimate().is_none() {
            self.follow();
        }
    }

    /// Computes the estimate anew.
    fn follow(&self) {
        let mut cells = [0_u64; CELLS];
        for shard in self.costs.iter() {
            let shard = shard.lock();
            cells.iter_mut().zip(&shard.cells).for_each(|(sum, cell)| *sum += u64::from(*cell));
        }
        let total: u64 = cells.iter().sum();
        if total < FEWEST {
            return;
        }
        let percentile = u64::from(self.percentile.load(Ordering::Relaxed));
        let covered = (total * percentile).div_ceil(100);
        let sums = cells.iter().scan(0, |sum, cell| {
            *sum += cell;
            Some(*sum)
        });
        let last = sums.take_while(|sum| *sum < covered).count();
        let estimate = most_in(last.min(CELLS - 1));
        if self.estimate.load(Ordering::Relaxed) != estimate {
            self.estimate.store(estimate, Ordering::Relaxed);
        }
    }
}

/// The cell of a cost: its octave, and the quarter of it.
fn cell(cost: u64) -> usize {
    let Some(octave) = cost.checked_ilog2() else { return 0 };
    let quarter = ((u128::from(cost) << 2) >> octave) & 3;
    (octave as usize * 4 + quarter as usize).min(CELLS - 1)
}

/// The largest cost of a cell.
const fn most_in(cell: usize) -> u64 {
    let (octave, quarter) = (cell / 4, cell % 4);
    let next = (((5 + quarter) as u128) << octave).div_ceil(4);
    let most = next as u64 - 1;
    if most == 0 { 1 } else { most }
}

/// What is learned under all limits, by the number of the rule and the position of the limit.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    limits: Mutex<HashMap<(u32, usize), Arc<Learned>>>,
}

impl Estimates {
    /// What is learned under each limit of `rule`, the same in every version of the policies;
    /// empty: nothing is.
    pub(super) fn of(&self, rule: &Rule) -> Box<[Option<Arc<Learned>>]> {
        let each = rule.limits.iter().enumerate().map(|(i, limit)| {
            let Some(Estimate::Learned(percentile)) = limit.hold().map(|terms| terms.estimate)
            else {
                return None;
            };
            let mut limits = self.limits.lock();
            let learned = limits.entry((rule.number(), i));
            let learned = learned.or_insert_with(|| Arc::new(Learned::new(percentile)));
            learned.percentile.store(percentile, Ordering::Relaxed);
            Some(Arc::clone(learned))
        });
        let all: Box<[_]> = each.collect();
        if all.iter().all(Option::is_none) { Box::default() } else { all }
    }

    /// Forgets what no limit uses.
    pub(super) fn drop_unused(&self) {
        self.limits.lock().retain(|_, learned| Arc::strong_count(learned) > 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn estimate_covers_its_percentile_by_at_most_a_quarter_octave() {
        let learned = Learned::new(95);
        for cost in 1..FEWEST {
            learned.note(cost);
        }
        assert_eq!(learned.estimate(), None, "too few");
        let learned = Learned::new(95);
        for cost in (1..=1_000).rev() {
            learned.note(cost);
        }
        let estimate = learned.estimate().unwrap();
        assert!((950..1_190).contains(&estimate), "{estimate}");
        learned.percentile.store(50, Ordering::Relaxed);
        learned.follow();
        let estimate = learned.estimate().unwrap();
        assert!((500..626).contains(&estimate), "{estimate}");
    }

    #[test]
    fn estimate_follows_costs_that_change() {
        let learned = Learned::new(90);
        (0..20_000).for_each(|_| learned.note(8_000));
        assert!(learned.estimate() >= Some(8_000));
        (0..20_000).for_each(|_| learned.note(100));
        assert!(learned.estimate().is_some_and(|hits| hits < 130), "{:?}", learned.estimate());
    }

    #[test]
    fn costs_of_nothing_are_estimated_as_the_least() {
        let learned = Learned::new(99);
        (0..FEWEST).for_each(|_| learned.note(0));
        assert_eq!(learned.estimate(), Some(1));
    }

    proptest! {
        /// Costs of a cell are at most its largest, and above the largest of the one before.
        #[test]
        fn cells_divide_all_costs(cost in 1_u64..1 << 32) {
            let cell = cell(cost);
            prop_assert!(cost <= most_in(cell));
            let before = (0..cell).rev().find(|before| most_in(*before) < most_in(cell));
            prop_assert!(before.is_none_or(|before| most_in(before) < cost));
            prop_assert!(most_in(cell) as f64 <= cost as f64 * 1.25);
        }
    }
}
