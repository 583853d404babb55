//! The targets of a rule that adapts, and the bounds of its scale.

use std::time::Duration;

/// The terms on which the limits of a rule are turned down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The time that 95 of 100 requests may take; none: times do not matter.
    pub p95: Option<Duration>,
    /// The share of requests that may fail, such as 0.05; none: failures do not matter.
    pub errors: Option<f64>,
    /// The least scale, in thousandths of the limits.
    pub min: u16,
    /// The largest scale, in thousandths of the limits.
    pub max: u16,
    /// The time in which a queue at the upstream is to be gone.
    pub drain: Duration,
    /// The scale is shown and not put in force.
    pub shadow: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            p95: None,
            errors: None,
            min: 100,
            max: 1_000,
            drain: Duration::from_secs(3),
            shadow: false,
        }
    }
}

impl Terms {
    /// True if the time is well within the target, not only below it.
    pub(super) fn is_quick(target: Duration, time: Duration) -> bool {
        time < target.mul_f64(0.8)
    }
}
