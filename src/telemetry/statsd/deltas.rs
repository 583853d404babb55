//! The lines of one report: what every counter has gained since the last one.

use std::collections::HashMap;

use super::wire::Wire;
use crate::telemetry::metrics::ReferenceMetrics;
use crate::telemetry::sharded::Distribution;

/// The value that stands for a duration beyond all buckets, as a multiple of the last bound.
const BEYOND: f64 = 1.5;

/// The counts reported so far.
#[derive(Debug)]
pub(super) struct Deltas {
    wire: Wire,
    sums: HashMap<String, u64>,
    /// Distribution, by bucket.
    durations: Vec<u64>,
}

impl Deltas {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, sums: HashMap::new(), durations: Vec::new() }
    }

    /// The lines of counters that have grown; counts them as reported.
    pub(super) fn lines(&mut self, reference: &ReferenceMetrics) -> Vec<String> {
        let mut lines = Vec::new();
        let Self { wire, sums, .. } = self;
        reference.visit(|name, sum| {
            let before = sums.get(name).copied().unwrap_or_default();
            if sum > before {
                lines.push(wire.counter(name, sum - before));
                sums.insert(name.to_owned(), sum);
            }
        });
        self.add_durations(&reference.response_time.read(), &mut lines);
        lines
    }

    /// Adds a line for each bucket with new durations: its middle, with their number as the rate of
    /// sampling. A line for each call would cost more than the call.
    fn add_durations(&mut self, durations: &Distribution, lines: &mut Vec<String>) {
        self.durations.resize(durations.buckets.len(), 0);
        let mut lower = 0.0;
        for ((upper, count), reported) in durations.buckets.iter().zip(&mut self.durations) {
            let middle = if upper.is_finite() { (lower + upper) / 2.0 } else { lower * BEYOND };
            if *count > *reported {
                let millis = (middle * 1e6).round() / 1e3;
                let name = ReferenceMetrics::timer();
                lines.push(self.wire.timer(&name, millis, count - *reported));
                *reported = *count;
            }
            lower = *upper;
        }
    }
}
