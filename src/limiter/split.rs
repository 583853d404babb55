//! The hits of a descriptor as envoyproxy/ratelimit counts them: over, near and within its limit.
//!
//! Its counters only grow, so a call that passes the limit is split at it. A limit that does not
//! charge a call that fails splits nothing: all hits of the call are over.
//!
//! Source: envoyproxy/ratelimit, `src/limiter/base_limiter.go` (the cases, and the threshold in
//! 32-bit arithmetic).

use super::status::{Limited, Load, Outcome, Status};
use crate::domain::Hits;
use crate::telemetry::metrics::HitSplit;

/// The split of `hits` that a descriptor with `status` asked for. `near_ratio` is the part of a
/// limit from which on hits are near it.
pub(super) fn split(hits: Hits, status: &Status, near_ratio: f32) -> HitSplit {
    let hits = match hits {
        Hits::Take(hits) | Hits::Book(hits) => hits,
        Hits::Hold(_) => 1,
        Hits::Peek(_) | Hits::Refund(_) => return HitSplit::default(),
    };
    let split = match &status.outcome {
        Outcome::Limited(Limited { passed, load, .. }) if !status.degraded => {
            by_load(hits, *passed, *load, near_ratio)
        }
        // A share or a failure mode decides by other numbers than those of the limit.
        Outcome::Limited(Limited { passed: true, .. }) => within(hits),
        Outcome::Limited(_) | Outcome::InvalidOverride => over(hits),
        Outcome::NoLimit
        | Outcome::NoRule
        | Outcome::UnknownDomain
        | Outcome::Unlimited
        | Outcome::Settled
        | Outcome::InvalidHold
        | Outcome::OutOfBounds => return HitSplit::default(),
    };
    let shadowed = if is_own_shadow(status) { split.over } else { 0 };
    HitSplit { total: hits, shadowed, ..split }
}

/// True if the rule or the client of a descriptor is in shadow mode, not only its domain.
pub(super) fn is_own_shadow(status: &Status) -> bool {
    let of_rule = || status.rule.as_ref().is_some_and(|rule| rule.shadow);
    let of_client = status.client.as_ref().and_then(|client| client.shadow);
    status.shadow && of_client.unwrap_or_else(of_rule)
}

fn by_load(hits: u64, passed: bool, load: Load, near_ratio: f32) -> HitSplit {
    let Load { capacity, used, charged } = load;
    let before = used.saturating_sub(hits);
    // The narrowing is that of envoyproxy/ratelimit.
    let threshold = (capacity as f32 * near_ratio).floor() as u64;
    if passed {
        let near = used.saturating_sub(threshold.max(before));
        return HitSplit { near, ..within(hits) };
    }
    if !charged || used <= capacity || before >= capacity {
        return over(hits);
    }
    HitSplit { over: used - capacity, near: capacity - threshold.max(before), ..over(0) }
}

fn within(hits: u64) -> HitSplit {
    HitSplit { within: hits, ..HitSplit::default() }
}

fn over(hits: u64) -> HitSplit {
    HitSplit { over: hits, ..HitSplit::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over, near and within of `hits` on a limit of 20 that was charged `before`.
    fn charged(before: u64, hits: u64) -> (u64, u64, u64) {
        let used = before + hits;
        let load = Load { capacity: 20, used, charged: true };
        let HitSplit { over, near, within, .. } = by_load(hits, used <= 20, load, 0.8);
        (over, near, within)
    }

    #[test]
    fn charged_hits_are_split_at_threshold_and_limit() {
        for (before, hits, expected) in [
            (20, 3, (3, 0, 0)),
            (25, 1, (1, 0, 0)),
            (15, 7, (2, 4, 0)),
            (18, 7, (5, 2, 0)),
            (0, 16, (0, 0, 16)),
            (16, 4, (0, 4, 4)),
            (17, 2, (0, 2, 2)),
            (15, 3, (0, 2, 3)),
            (0, 20, (0, 4, 20)),
        ] {
            assert_eq!(charged(before, hits), expected, "{hits} hits after {before}");
        }
    }

    #[test]
    fn hits_that_are_not_charged_are_over() {
        for (used, capacity) in [(15, 20), (20, 20), (0, 0)] {
            let load = Load { capacity, used, charged: false };
            assert_eq!(by_load(7, false, load, 0.8), over(7));
        }
        let blocked = Load { capacity: 0, used: 0, charged: true };
        assert_eq!(by_load(7, false, blocked, 0.8), over(7));
    }

    #[test]
    fn threshold_is_that_of_32_bits() {
        // In 64 bits, 0.07 of 100 is 7.000000000000001.
        for (capacity, ratio, threshold) in [(20, 0.8, 16), (1, 0.8, 0), (100, 0.07, 7)] {
            let load = Load { capacity, used: capacity, charged: true };
            assert_eq!(by_load(capacity, true, load, ratio).near, capacity - threshold);
        }
    }
}
