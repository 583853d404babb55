//! Needless refusals: calls that were refused although the promise allowed their hits at every
//! moment at which the decision may have been made, wherever the admitted hits lie.
//!
//! An upper bound of the hits in use decides. Hits that were given back may still be in use, so
//! they are not deducted.

use super::rate::Slope;
use super::steps::Steps;
use super::trace::Call;

/// Hits that may be in use in a window.
#[derive(Debug)]
pub(super) struct WindowUse(Steps<i128>);

impl WindowUse {
    /// Admitted hits may count from the time at which they are sent until `end` of their call.
    pub(super) fn new(admitted: &[Call], end: impl Fn(&Call) -> i64) -> Self {
        let mut changes: Vec<(i64, i64)> = Vec::with_capacity(2 * admitted.len());
        for call in admitted {
            let hits = call.hits.cast_signed();
            changes.extend([(call.sent, hits), (end(call), -hits)]);
        }
        changes.sort_unstable_by_key(|(time, _)| *time);
        Self(Steps::new(changes.into_iter().scan(0, |used, (time, change)| {
            *used += i128::from(change);
            Some((time, *used))
        })))
    }

    /// Returns true if `refused` fits into `limit` whenever it was decided.
    pub(super) fn fits(&self, refused: &Call, limit: u64) -> bool {
        let before = self.0.at(refused.sent);
        let used = before.max(self.0.highest(refused.sent, refused.received)).unwrap_or(0);
        used + i128::from(refused.hits) <= i128::from(limit)
    }
}

/// Hits that may be missing in a bucket, if each was decided as late as it can be. Times `per`.
#[derive(Debug)]
pub(super) struct BucketUse {
    slope: Slope,
    /// By time of answer: the hits missing once those answered are charged, and the sum of these.
    answered: Vec<(i64, i128, i128)>,
    /// By time of sending: the sum of the hits sent.
    sent: Vec<(i64, i128)>,
    /// The hits that may be missing when a call is sent. In between, they only get fewer.
    peaks: Steps<i128>,
}

impl BucketUse {
    pub(super) fn new(admitted: &[Call], slope: Slope) -> Self {
        let per = i128::from(slope.per);
        let sent = sums(admitted, |call| call.sent);
        let mut missing = 0;
        let mut time_before = None;
        let mut sum_before = 0;
        let answered = sums(admitted, |call| call.received).into_iter().map(|(time, sum)| {
            let refilled = time_before.map_or(0, |before| refill(slope, before, time));
            missing = (missing - refilled).max(0) + (sum - sum_before) * per;
            (time_before, sum_before) = (Some(time), sum);
            (time, missing, sum)
        });
        let answered = answered.collect();
        let mut usage = Self { slope, answered, sent, peaks: Steps::new([]) };
        usage.peaks = Steps::new(usage.sent.iter().map(|(time, _)| (*time, usage.missing(*time))));
        usage
    }

    /// Returns true if `refused` fits into the bucket whenever it was decided.
    pub(super) fn fits(&self, refused: &Call) -> bool {
        let per = i128::from(self.slope.per);
        let peak = self.peaks.highest(refused.sent, refused.received);
        let missing = self.missing(refused.sent).max(peak.unwrap_or(0));
        missing + i128::from(refused.hits) * per <= i128::from(self.slope.burst) * per
    }

    /// The hits that may be missing at `time`: those answered, refilled since, and those under way.
    fn missing(&self, time: i64) -> i128 {
        let answered = self.answered.partition_point(|(at, ..)| *at <= time);
        let answered = answered.checked_sub(1).and_then(|last| self.answered.get(last));
        let sent = self.sent.partition_point(|(at, _)| *at <= time);
        let sent = sent.checked_sub(1).and_then(|last| self.sent.get(last));
        let sent = sent.map_or(0, |(_, sum)| *sum);
        let (left, known) = answered.map_or((0, 0), |(at, missing, sum)| {
            ((missing - refill(self.slope, *at, time)).max(0), *sum)
        });
        left + (sent - known) * i128::from(self.slope.per)
    }
}

/// The refill from one time to another, times `per`.
fn refill(slope: Slope, from: i64, to: i64) -> i128 {
    i128::from(slope.rate) * (i128::from(to) - i128::from(from))
}

/// The sums of hits by a time of their calls, in order.
fn sums(calls: &[Call], time: fn(&Call) -> i64) -> Vec<(i64, i128)> {
    let mut sums: Vec<(i64, i128)> =
        calls.iter().map(|call| (time(call), call.hits.into())).collect();
    sums.sort_unstable_by_key(|(at, _)| *at);
    let mut sum = 0;
    for (_, hits) in &mut sums {
        sum += *hits;
        *hits = sum;
    }
    sums
}
