//! Log lines of denials, target [`DENIED`], at debug: which limit denied which request.
//!
//! At most so many a second as the settings say; the rest is counted. Switched off it costs a load
//! of the level.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use tracing::Level;

use super::key::SensitiveHasher;
use super::redact::{Sensitivity, ShownDescriptor};
use super::request::Request;
use super::status::{Decision, Outcome, Status};
use crate::domain::Verdict;
use crate::telemetry::escape::escape;
use crate::telemetry::logs::DENIED;
use crate::telemetry::metrics::Metrics;

/// The lines of denials of this process.
#[derive(Debug)]
pub struct DeniedLines {
    per_second: u32,
    lines: LinesPerSecond,
}

impl DeniedLines {
    /// At most `per_second` lines in a second.
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, lines: LinesPerSecond(AtomicU64::new(0)) }
    }
}

/// Logs `decision` if it denies `request`: its first descriptor that is over its limit.
pub(super) fn log_denial(
    log: &DeniedLines,
    metrics: &Metrics,
    hasher: &SensitiveHasher,
    request: &Request,
    decision: &Decision,
) {
    if !tracing::enabled!(target: DENIED, Level::DEBUG)
        || decision.verdict == Verdict::Admit
        || decision.unavailable.is_some()
    {
        return;
    }
    if !log.lines.take(second(), log.per_second) {
        metrics.output.lines_dropped.denied.inc();
        return;
    }
    let mut statuses = request.descriptors.iter().zip(&decision.statuses);
    let Some((descriptor, status)) = statuses.find(|(_, status)| status.over_limit()) else {
        return;
    };
    let domain = decision.snapshot.policies.domain(request.domain).map(AsRef::as_ref);
    // A request beyond the bounds may have megabytes of entries.
    let looked_at = !matches!(status.outcome, Outcome::OutOfBounds);
    let entries = if looked_at { &*descriptor.entries } else { &[] };
    let sensitivity = Sensitivity::of(status.rule.as_deref(), domain);
    tracing::debug!(
        target: DENIED,
        domain = %escape(if looked_at { request.domain } else { b"" }),
        rule = status.rule.as_ref().map_or("", |rule| &rule.label),
        limit = limit(status),
        entries = %ShownDescriptor::new(entries, sensitivity, hasher),
        "denied",
    );
}

/// The limit that matters most, otherwise why there is none.
fn limit(status: &Status) -> String {
    match &status.outcome {
        Outcome::Limited(limited) => limited.limit.to_string(),
        outcome => outcome.reason().unwrap_or_default().to_owned(),
    }
}

/// The second of the process in which this is called.
fn second() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs()
}

/// A count within the current second: the second and the count, in one number.
#[derive(Debug)]
struct LinesPerSecond(AtomicU64);

impl LinesPerSecond {
    /// Takes one of the `most` lines of `second`; false: none is left.
    fn take(&self, second: u64, most: u32) -> bool {
        let second = second & u64::from(u32::MAX);
        let next = |state: u64| match (state >> 32, state & u64::from(u32::MAX)) {
            (then, lines) if then == second => (lines < most.into()).then_some(state + 1),
            _ => Some((second << 32) | 1),
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_by_second() {
        let lines = LinesPerSecond(AtomicU64::new(0));
        for second in 0..3 {
            let taken = (0..100).filter(|_| lines.take(second, 7)).count();
            assert_eq!(taken, 7);
        }
    }
}
