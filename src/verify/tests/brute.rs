//! The same answers by search: every interval, every placement of the decisions.

use super::super::Promise;
use super::super::trace::{Call, Trace};
use crate::domain::Algorithm;

/// The times of all traces of these tests lie within.
const TIMES: std::ops::RangeInclusive<i64> = 0..=40;

/// A promise, for small numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    algorithm: Algorithm,
    limit: i128,
    burst: i128,
    period: i64,
    /// The time that a hit counts in a window, as an algorithm with slots has it.
    counts: i64,
}

/// A hit at the time of its decision.
type Decided = (i64, u64);

impl Kind {
    pub(super) fn of(promise: &Promise) -> Self {
        let limit = promise.limit();
        let bound = i128::from(promise.bound());
        let period = limit.period_micros().cast_signed();
        Self {
            algorithm: limit.algorithm(),
            limit: i128::from(limit.requests()) * bound,
            burst: i128::from(limit.capacity()) * bound,
            period,
            counts: period + limit.run_width().cast_signed() - 1,
        }
    }

    /// The largest excess of an interval that holds a certain hit; of buckets times the period.
    pub(super) fn worst_excess(self, trace: &Trace) -> Option<i128> {
        let starts = || TIMES;
        match self.algorithm {
            Algorithm::TokenBucket { .. } => {
                let intervals = starts().flat_map(|x| (x..=*TIMES.end()).map(move |y| (x, y)));
                let excess = |(x, y): (i64, i64)| {
                    let refilled = self.limit * i128::from(y - x);
                    let per = i128::from(self.period);
                    Some((hits_in(trace, x, y)? - self.burst) * per - refilled)
                };
                intervals.filter_map(excess).max()
            }
            Algorithm::SlidingWindow { .. } => {
                let first = trace.admitted.iter().map(|call| call.sent).min()?;
                let last = trace.admitted.iter().map(|call| call.received).max()?;
                let runs = [1, 2, 4, 8, 16, 32].into_iter();
                let runs = runs.filter(|run| *run == 1 || run * self.period <= last - first);
                let excess = |run: i64| {
                    let long = run * self.period;
                    let windows = -long..=*TIMES.end();
                    let hits = windows.filter_map(|x| hits_in(trace, x, x + long - 1)).max();
                    Some(hits? - i128::from(run) * self.limit)
                };
                runs.filter_map(excess).max()
            }
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                let windows = || 0..=*TIMES.end() / self.period;
                let runs = windows().flat_map(|j| windows().map(move |k| (j, k)));
                let excess = |(j, k): (i64, i64)| {
                    let hits = hits_in(trace, j * self.period, (k + 1) * self.period - 1)?;
                    Some(hits - i128::from(k - j + 1) * self.limit)
                };
                runs.filter(|(j, k)| j <= k).filter_map(excess).max()
            }
        }
    }

    /// True if hits decided at these times keep the promise.
    pub(super) fn keeps(self, decided: &[Decided]) -> bool {
        decided.iter().all(|(start, _)| {
            decided.iter().filter(|(end, _)| end >= start).all(|(end, _)| {
                let within = decided.iter().filter(|(at, _)| (start..=end).contains(&at));
                let sum: i128 = within.map(|(_, hits)| i128::from(*hits)).sum();
                let per = i128::from(self.period);
                match self.algorithm {
                    Algorithm::TokenBucket { .. } => {
                        (sum - self.burst) * per <= self.limit * i128::from(end - start)
                    }
                    Algorithm::SlidingWindow { .. } => {
                        end - start >= self.period || sum <= self.limit
                    }
                    Algorithm::FixedWindow | Algorithm::Concurrency => {
                        end / self.period != start / self.period || sum <= self.limit
                    }
                }
            })
        })
    }

    /// True if so many more hits fit at `now` behind those decided until then.
    pub(super) fn fits(self, decided: &[Decided], now: i64, hits: u64) -> bool {
        let mut before: Vec<Decided> =
            decided.iter().copied().filter(|(at, _)| *at <= now).collect();
        before.sort_unstable();
        let sum_of = |counts: &dyn Fn(i64) -> bool| -> i128 {
            let counted = before.iter().filter(|(at, _)| counts(*at));
            counted.map(|(_, hits)| i128::from(*hits)).sum()
        };
        let hits = i128::from(hits);
        match self.algorithm {
            Algorithm::TokenBucket { .. } => {
                let per = i128::from(self.period);
                let mut missing = (0_i128, 0_i64);
                for (at, hits) in before.iter().copied().chain([(now, 0)]) {
                    let refilled = self.limit * i128::from(at - missing.1);
                    missing = ((missing.0 - refilled).max(0) + i128::from(hits) * per, at);
                }
                missing.0 + hits * per <= self.burst * per
            }
            Algorithm::SlidingWindow { .. } => {
                sum_of(&|at| at > now - self.counts) + hits <= self.limit
            }
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                sum_of(&|at| at / self.period == now / self.period) + hits <= self.limit
            }
        }
    }
}

/// The certain hits of an interval less those that may be given back in it; none if no hit is
/// certain.
fn hits_in(trace: &Trace, from: i64, to: i64) -> Option<i128> {
    let certain = |call: &&Call| call.sent >= from && call.received <= to;
    let hits: u64 = trace.admitted.iter().filter(certain).map(|call| call.hits).sum();
    let possible = |call: &&Call| call.sent <= to && call.received >= from;
    let given: u64 = trace.refunded.iter().filter(possible).map(|call| call.hits).sum();
    (hits > 0).then(|| i128::from(hits) - i128::from(given))
}

/// Every placement of the decisions of `calls`.
pub(super) fn placements(calls: &[Call]) -> impl Iterator<Item = Vec<Decided>> {
    let count: i64 = calls.iter().map(|call| call.received - call.sent + 1).product();
    (0..count).map(move |mut number| {
        let place = |call: &Call| {
            let choices = call.received - call.sent + 1;
            let at = call.sent + number % choices;
            number /= choices;
            (at, call.hits)
        };
        calls.iter().map(place).collect()
    })
}
