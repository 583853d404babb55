//! Bounds that grow with time: at most burst + rate * t hits in any interval t.
//!
//! For each end of an interval, in order, a [`Tree`] has the best start. O(m log m) for m calls.

use super::refunds::Refunds;
use super::trace::Call;
use super::tree::{Start, Tree};
use super::worst::Worst;

/// At most `burst` + `rate` * t / `per` hits in any interval t.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slope {
    pub(super) burst: u64,
    pub(super) rate: u64,
    pub(super) per: u64,
}

/// The worst interval of a token bucket; none if nothing was admitted.
pub(super) fn worst(admitted: &[Call], refunded: &[Call], slope: Slope) -> Option<Worst> {
    let Slope { burst, rate, per } = slope;
    let (burst, rate, weight) = (i128::from(burst), i128::from(rate), i128::from(per));
    let refunds = Refunds::new(refunded);
    let starts = starts(admitted);
    let offset = |index: usize| {
        let start = starts.get(index).copied().unwrap_or_default();
        rate * i128::from(start) + weight * refunds.received_before(start)
    };
    let mut tree = Tree::new(starts.len(), per, offset);
    let mut worst: Option<(i128, i64, Start)> = None;
    for (end, start, hits) in ends(admitted, &starts) {
        tree.add(start, hits);
        let excess = tree.best() - rate * i128::from(end) - weight * refunds.sent_by(end);
        if worst.is_none_or(|(most, ..)| excess > most) {
            worst = Some((excess, end, tree.best_start()));
        }
    }
    let (excess, to, Start { index, sum }) = worst?;
    let from = starts.get(index).copied()?;
    let hits = u64::try_from(sum / weight).unwrap_or(u64::MAX);
    Some(Worst { from, to, hits, allowed: sum - excess + burst * weight, per })
}

/// The worst run of aligned windows; none if nothing was admitted.
///
/// A window allows as much as the one before it, so a run of windows is an interval on a time line
/// whose unit is the window.
pub(super) fn worst_of_windows(
    admitted: &[Call],
    refunded: &[Call],
    limit: u64,
    window: u64,
) -> Option<Worst> {
    let window = window.cast_signed();
    let number = |call: &Call| Call {
        sent: call.sent.div_euclid(window),
        received: call.received.div_euclid(window),
        hits: call.hits,
    };
    let numbered = |calls: &[Call]| calls.iter().map(number).collect::<Vec<_>>();
    let slope = Slope { burst: limit, rate: limit, per: 1 };
    let worst = worst(&numbered(admitted), &numbered(refunded), slope)?;
    Some(Worst { from: worst.from * window, to: (worst.to + 1) * window - 1, ..worst })
}

/// The distinct times at which calls were sent, in order.
fn starts(calls: &[Call]) -> Vec<i64> {
    let mut starts: Vec<i64> = calls.iter().map(|call| call.sent).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Of each call the time of its answer, the index of its start, and its hits; in order of time.
fn ends(calls: &[Call], starts: &[i64]) -> Vec<(i64, usize, u64)> {
    let end = |call: &Call| {
        let start = starts.partition_point(|start| *start < call.sent);
        (call.received, start, call.hits)
    };
    let mut ends: Vec<_> = calls.iter().map(end).collect();
    ends.sort_unstable();
    ends
}
