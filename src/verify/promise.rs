//! A promise: a limit as a bound of the hits admitted, and the checks of a trace.

use std::collections::VecDeque;

use super::exact::Exact;
use super::finding::Finding;
use super::rate::{self, Slope};
use super::refusals::{BucketUse, WindowUse};
use super::sliding;
use super::trace::{Call, Trace};
use super::worst::Worst;
use crate::domain::{Algorithm, Limit};

/// A bound of the hits admitted: that of a limit, or a multiple of it.
///
/// Text such as `sliding_window 50/s`, `token_bucket 50/s burst 100` and `fixed_window 3/day` is a
/// promise, too. Without an algorithm it is `sliding_window`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Promise {
    limit: Limit,
    bound: u32,
}

/// A promise that a trace breaks.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// The promise.
    pub promise: Promise,
    /// The interval that shows it.
    pub worst: Worst,
}

impl Promise {
    /// The largest multiple of a limit.
    pub const MAX_BOUND: u32 = 1_000;

    /// The promise of `limit`.
    pub const fn new(limit: Limit) -> Self {
        Self { limit, bound: 1 }
    }

    /// At most `bound` times the promise of the limit, 1 to [`MAX_BOUND`](Self::MAX_BOUND).
    #[must_use]
    pub fn times(self, bound: u32) -> Self {
        Self { bound: bound.clamp(1, Self::MAX_BOUND), ..self }
    }

    /// The limit.
    pub const fn limit(&self) -> &Limit {
        &self.limit
    }

    /// The multiple of the limit.
    pub const fn bound(&self) -> u32 {
        self.bound
    }

    /// Checks that no interval of `trace` holds more hits than promised.
    ///
    /// # Errors
    /// The worst interval, if one does.
    pub fn check(&self, trace: &Trace) -> Result<(), Box<Broken>> {
        match self.worst(trace) {
            Some(worst) if worst.is_excess() => Err(Box::new(Broken { promise: *self, worst })),
            _ => Ok(()),
        }
    }

    /// The interval with the largest excess; none if no hits are certain in any.
    pub fn worst(&self, trace: &Trace) -> Option<Worst> {
        let is_bucket = matches!(self.limit.algorithm(), Algorithm::TokenBucket { .. });
        let settled = match trace.held.is_empty() {
            true => None,
            false if is_bucket => Some(trace.by_estimate()),
            false => Some(trace.by_cost()),
        };
        let (admitted, refunded) = match &settled {
            Some((admitted, refunded)) => (&admitted[..], &refunded[..]),
            None => (&trace.admitted[..], &trace.refunded[..]),
        };
        let (bound, window) = (u64::from(self.bound), self.limit.period_micros());
        let requests = u64::from(self.limit.requests()) * bound;
        match self.limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                let Slope { burst, rate, per } = self.slope();
                let slope = Slope { burst: burst * bound, rate: rate * bound, per };
                rate::worst(admitted, refunded, slope)
            }
            Algorithm::SlidingWindow { .. } => sliding::worst(admitted, refunded, requests, window),
            Algorithm::FixedWindow => rate::worst_of_windows(admitted, refunded, requests, window),
            // A trace does not say when holds end.
            Algorithm::Concurrency => None,
        }
    }

    /// The worst interval, the needless refusals and the hits of an exact limiter. The last two are
    /// those of the limit itself, not of a multiple of it.
    pub fn finding(&self, trace: &Trace) -> Finding {
        // As long as estimates are held, a refusal may be theirs.
        let needless = || self.needless(&trace.by_estimate().0, &trace.refused);
        let (admitted, _) = trace.by_cost();
        Finding {
            admitted: admitted.len(),
            refused: trace.refused.len(),
            worst: self.worst(trace),
            needless: (!self.charges_denied()).then(needless),
            hits: admitted.iter().fold(0, |sum, call| call.hits.saturating_add(sum)),
            exact_hits: self.exact_hits(trace),
        }
    }

    fn needless(&self, admitted: &[Call], refused: &[Call]) -> usize {
        if refused.is_empty() {
            return 0;
        }
        let (requests, period) = (self.limit.requests().into(), self.period());
        let count = |fits: &dyn Fn(&Call) -> bool| refused.iter().filter(|call| fits(call)).count();
        match self.limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                let usage = BucketUse::new(admitted, self.slope());
                count(&|call| usage.fits(call))
            }
            Algorithm::SlidingWindow { .. } => {
                // A slot longer is the right of the algorithm.
                let counts = period + self.limit.run_width().cast_signed() - 1;
                let usage = WindowUse::new(admitted, |call| call.received + counts);
                count(&|call| usage.fits(call, requests))
            }
            Algorithm::FixedWindow => {
                let end = |call: &Call| (call.received.div_euclid(period) + 1) * period;
                let usage = WindowUse::new(admitted, end);
                count(&|call| usage.fits(call, requests))
            }
            Algorithm::Concurrency => 0,
        }
    }

    fn exact_hits(&self, trace: &Trace) -> Option<u64> {
        if self.charges_denied() || !trace.refunded.is_empty() || !trace.held.is_empty() {
            return None;
        }
        let (limit, window) = (self.limit.requests().into(), self.period());
        let exact = match self.limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                Exact::Bucket { slope: self.slope(), missing: 0, at: None }
            }
            Algorithm::SlidingWindow { .. } => {
                Exact::Sliding { limit, window, log: VecDeque::new(), used: 0 }
            }
            Algorithm::FixedWindow => Exact::Fixed { limit, window, current: i64::MIN, used: 0 },
            Algorithm::Concurrency => return None,
        };
        Some(exact.admitted(trace.admitted.iter().chain(&trace.refused)))
    }

    /// True if a denied request may be charged, so that a refusal may follow from another.
    const fn charges_denied(&self) -> bool {
        self.limit.always_charges() || self.limit.settles()
    }

    fn slope(&self) -> Slope {
        Slope {
            burst: self.limit.passing(),
            rate: self.limit.requests().into(),
            per: self.limit.period_micros(),
        }
    }

    /// The period of the limit in microseconds.
    fn period(&self) -> i64 {
        self.limit.period_micros().cast_signed()
    }
}
