//! Exact limiters: the hits that they admit of a trace, if each call is decided in the middle of
//! its span. The measure of efficiency.

use std::collections::VecDeque;

use super::rate::Slope;
use super::trace::Call;

/// Hits in use, by the rule of one algorithm.
#[derive(Debug)]
pub(super) enum Exact {
    /// Every hit of the last `window` microseconds.
    Sliding { limit: u64, window: i64, log: VecDeque<(i64, u64)>, used: u64 },
    /// The hits of the current window.
    Fixed { limit: u64, window: i64, current: i64, used: u64 },
    /// The hits missing in a bucket, times `per`.
    Bucket { slope: Slope, missing: i128, at: Option<i64> },
}

impl Exact {
    /// The hits admitted of these calls.
    pub(super) fn admitted<'c>(mut self, calls: impl Iterator<Item = &'c Call>) -> u64 {
        let mut calls: Vec<(i64, u64)> = calls.map(|call| (call.middle(), call.hits)).collect();
        calls.sort_unstable();
        let taken = calls.into_iter().filter(|(now, hits)| self.takes(*now, *hits));
        taken.fold(0_u64, |sum, (_, hits)| sum.saturating_add(hits))
    }

    fn takes(&mut self, now: i64, hits: u64) -> bool {
        match self {
            Self::Sliding { limit, window, log, used } => {
                while let Some((_, old)) = log.pop_front_if(|(at, _)| *at + *window <= now) {
                    *used -= old;
                }
                let fits = used.saturating_add(hits) <= *limit;
                if fits {
                    *used += hits;
                    log.push_back((now, hits));
                }
                fits
            }
            Self::Fixed { limit, window, current, used } => {
                let number = now.div_euclid(*window);
                if number != *current {
                    (*current, *used) = (number, 0);
                }
                let fits = used.saturating_add(hits) <= *limit;
                if fits {
                    *used += hits;
                }
                fits
            }
            Self::Bucket { slope, missing, at } => {
                let waited = i128::from(now) - i128::from(at.replace(now).unwrap_or(now));
                *missing = (*missing - i128::from(slope.rate) * waited).max(0);
                let charged = *missing + i128::from(hits) * i128::from(slope.per);
                let fits = charged <= i128::from(slope.burst) * i128::from(slope.per);
                if fits {
                    *missing = charged;
                }
                fits
            }
        }
    }
}
