//! Hits that were given back. An interval may hold as many more admitted ones.

use super::trace::Call;

/// Sums of the hits given back, over time.
#[derive(Debug)]
pub(super) struct Refunds {
    by_sent: Vec<(i64, i128)>,
    by_received: Vec<(i64, i128)>,
}

impl Refunds {
    pub(super) fn new(calls: &[Call]) -> Self {
        let sums = |time: fn(&Call) -> i64| {
            let mut sums: Vec<(i64, i128)> =
                calls.iter().map(|call| (time(call), call.hits.into())).collect();
            sums.sort_unstable();
            let mut sum = 0;
            for (_, hits) in &mut sums {
                sum += *hits;
                *hits = sum;
            }
            sums
        };
        Self { by_sent: sums(|call| call.sent), by_received: sums(|call| call.received) }
    }

    /// Hits of all calls that were sent at `time` or before.
    pub(super) fn sent_by(&self, time: i64) -> i128 {
        sum_of_first(&self.by_sent, |at| at <= time)
    }

    /// Hits of all calls that were answered before `time`.
    pub(super) fn received_before(&self, time: i64) -> i128 {
        sum_of_first(&self.by_received, |at| at < time)
    }
}

fn sum_of_first(sums: &[(i64, i128)], in_time: impl Fn(i64) -> bool) -> i128 {
    let count = sums.partition_point(|(at, _)| in_time(*at));
    count.checked_sub(1).and_then(|last| sums.get(last)).map_or(0, |(_, sum)| *sum)
}
