//! Bounds of every window of a length: at most n hits in any window, wherever it begins.
//!
//! A call is certain in the window [x, x + W) for x in (received - W, sent]. The worst window is
//! where most of these ranges overlap: their ends are swept in order. Windows of 2, 4, 8 .. lengths
//! may hold 2, 4, 8 .. times the hits. They show a rate that is wrong by little, which the time
//! that answers take hides in one window.

use super::trace::Call;
use super::worst::Worst;

/// One end of the range of windows in which a call counts.
#[derive(Clone, Copy, Debug)]
struct Edge {
    at: i64,
    /// Hits more or fewer from here on.
    delta: i64,
    /// The time between call and answer. Negative for a refund, whose range is never empty.
    span: i64,
}

impl Edge {
    const fn is_refund(&self) -> bool {
        self.span < 0
    }
}

/// The worst window, or run of 2, 4, 8 .. windows; none if no call fits into one.
pub(super) fn worst(
    admitted: &[Call],
    refunded: &[Call],
    limit: u64,
    window: u64,
) -> Option<Worst> {
    let first = admitted.iter().map(|call| call.sent).min()?;
    let last = admitted.iter().map(|call| call.received).max()?;
    let opens = edges(admitted, |call| call.received, refunded, |call| call.sent, 1);
    let closes = edges(admitted, |call| call.sent, refunded, |call| call.received, -1);
    let (length, window) = (i128::from(last) - i128::from(first), i128::from(window));
    let mut worst: Option<(i128, i64, i64)> = None;
    let mut windows: i128 = 1;
    while windows == 1 || windows * window <= length {
        let long = i64::try_from(windows * window).ok()?;
        let (most, x) = deepest(&opens, &closes, long);
        let excess = most - windows * i128::from(limit);
        if worst.is_none_or(|(worst, ..)| excess > worst) {
            worst = Some((excess, x, long));
        }
        windows *= 2;
    }
    let (excess, x, long) = worst?;
    within(admitted, x, x + (long - 1), excess)
}

/// The certain hits of the window `first..=last`, and the part of it that they take.
fn within(admitted: &[Call], first: i64, last: i64, excess: i128) -> Option<Worst> {
    let certain = |call: &&Call| call.sent >= first && call.received <= last;
    let certain = || admitted.iter().filter(certain);
    let hits: i128 = certain().map(|call| i128::from(call.hits)).sum();
    Some(Worst {
        from: certain().map(|call| call.sent).min()?,
        to: certain().map(|call| call.received).max()?,
        hits: u64::try_from(hits).unwrap_or(u64::MAX),
        allowed: hits - excess,
        per: 1,
    })
}

/// The edges of admitted calls and of refunds, at these times, in order.
fn edges(
    admitted: &[Call],
    at: fn(&Call) -> i64,
    refunded: &[Call],
    refund_at: fn(&Call) -> i64,
    sign: i64,
) -> Vec<Edge> {
    let admitted = admitted.iter().map(|call| Edge {
        at: at(call),
        delta: sign * call.hits.cast_signed(),
        span: call.received - call.sent,
    });
    let refunded = refunded.iter().map(|call| Edge {
        at: refund_at(call),
        delta: sign * call.hits.cast_signed(),
        span: -1,
    });
    let mut edges: Vec<Edge> = admitted.chain(refunded).collect();
    edges.sort_unstable_by_key(|edge| edge.at);
    edges
}

/// The most hits that a window of this length holds for certain, less those given back in it, and
/// where the window begins.
fn deepest(opens: &[Edge], closes: &[Edge], window: i64) -> (i128, i64) {
    let fits = |edge: &&Edge| edge.span < window;
    let mut opens = opens.iter().filter(fits).map(|e| (e.at - window + 1, e)).peekable();
    let mut closes = closes.iter().filter(fits).map(|e| (e.at + 1, e)).peekable();
    let (mut certain, mut given) = (0_i128, 0_i128);
    let mut most = (i128::MIN / 2, 0);
    loop {
        let next = [opens.peek(), closes.peek()].into_iter().flatten().map(|(at, _)| *at).min();
        let Some(x) = next else { return most };
        while let Some((_, edge)) =
            closes.next_if(|(at, _)| *at == x).or_else(|| opens.next_if(|(at, _)| *at == x))
        {
            let sum = if edge.is_refund() { &mut given } else { &mut certain };
            *sum += i128::from(edge.delta);
        }
        if certain > 0 && certain - given > most.0 {
            most = (certain - given, x);
        }
    }
}
