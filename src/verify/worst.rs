//! The interval with the largest excess.

use std::fmt;
use std::time::Duration;

/// The interval in which most hits are certain beyond what the promise allows. The excess may be
/// negative.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Worst {
    /// The start in microseconds.
    pub from: i64,
    /// The end in microseconds, included.
    pub to: i64,
    /// The hits that were decided in between, wherever decisions lie.
    pub hits: u64,
    /// The hits allowed, times `per`.
    pub(super) allowed: i128,
    /// The denominator of `allowed`, at least 1.
    pub(super) per: u64,
}

impl Worst {
    /// The hits that the promise allows in the interval.
    pub fn allowed(&self) -> f64 {
        self.allowed as f64 / self.per as f64
    }

    /// The hits beyond those allowed; negative if there are fewer.
    pub fn excess(&self) -> f64 {
        self.excess_times_per() as f64 / self.per as f64
    }

    /// True if the interval breaks the promise. Exact.
    pub fn is_excess(&self) -> bool {
        self.excess_times_per() > 0
    }

    /// The length of the interval.
    pub fn length(&self) -> Duration {
        Duration::from_micros(self.to.abs_diff(self.from))
    }

    fn excess_times_per(&self) -> i128 {
        i128::from(self.hits) * i128::from(self.per) - self.allowed
    }
}

/// Such as `51 hits from 1700000000000000 to 1700000000980000 us (0.980 s), 50 allowed`.
impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, hits, .. } = self;
        let seconds = self.length().as_secs_f64();
        write!(f, "{hits} hits from {from} to {to} us ({seconds:.3} s), ")?;
        match self.allowed % i128::from(self.per) {
            0 => write!(f, "{} allowed", self.allowed / i128::from(self.per)),
            _ => write!(f, "{:.2} allowed", self.allowed()),
        }
    }
}
