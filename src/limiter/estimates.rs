//! Estimates that are learned: the cost that most requests under a limit stay within.
//!
//! Each process learns from the settlements that reach it, so it needs no exchange with others: any
//! of them sees a fair sample. Counted per thread; a decision reads one number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::adaptive::Histogram;
use crate::policy::{Estimate, Rule};
use crate::telemetry::sharded::PerThread;

/// Costs; the last cell has all above 2^31.75.
type Costs = Histogram<128>;

/// The fewest costs from which something is learned.
const FEWEST: u64 = 50;

/// After so many costs of a thread, those before count half.
const HALVED_EACH: u64 = 2_500;

/// The estimate follows each so many costs of a thread.
const FOLLOWED_EACH: u64 = 8;

/// The costs of requests under one limit.
#[derive(Debug)]
pub(super) struct Learned {
    costs: PerThread<Mutex<Counted>>,
    /// The share of costs, in percent, that the estimate covers.
    percentile: AtomicU8,
    /// 0: nothing is known yet.
    estimate: AtomicU64,
}

/// The costs that a thread has counted.
#[derive(Debug, Default)]
struct Counted {
    costs: Costs,
    seen: u64,
}

impl Counted {
    fn add(&mut self, cost: u64) {
        self.costs.add(cost as f64, 1);
        self.seen += 1;
        if self.seen.is_multiple_of(HALVED_EACH) {
            self.costs.halve();
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
            own.seen.is_multiple_of(FOLLOWED_EACH)
        };
        if is_due || self.estimate().is_none() {
            self.follow();
        }
    }

    /// Computes the estimate anew.
    fn follow(&self) {
        let mut all = Costs::default();
        self.costs.iter().for_each(|own| all.merge(&own.lock().costs));
        let share = f64::from(self.percentile.load(Ordering::Relaxed)) / 100.0;
        let Some(edge) = all.percentile(share).filter(|_| all.total() >= FEWEST) else { return };
        let estimate = edge.floor() as u64;
        if self.estimate.load(Ordering::Relaxed) != estimate {
            self.estimate.store(estimate, Ordering::Relaxed);
        }
    }
}

/// The costs under all limits that learn, by the number of the rule and the position of the limit.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    limits: Mutex<HashMap<(u32, usize), Arc<Learned>>>,
}

impl Estimates {
    /// The costs under each limit of `rule` that learns, the same in every version of the policies;
    /// empty: none does.
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
    use super::*;

    #[test]
    fn estimate_covers_its_percentile() {
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
        assert!((950..1_140).contains(&estimate), "{estimate}");
        learned.percentile.store(50, Ordering::Relaxed);
        learned.follow();
        let estimate = learned.estimate().unwrap();
        assert!((500..600).contains(&estimate), "{estimate}");
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
}
