//! What a run found, as a table or as JSON.

use std::fmt;

use serde::Serialize;

use super::LoadArgs;
use super::drive::Outcome;

/// What a run found. Latencies in milliseconds, from when a call was due.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// Answers.
    pub(crate) calls: u64,
    /// Answers per second.
    pub(crate) calls_per_second: f64,
    /// Descriptors decided per second.
    pub(crate) decisions_per_second: f64,
    /// Answers that said over limit.
    pub(crate) over_limit: u64,
    /// Calls that failed.
    pub(crate) errors: u64,
    /// Calls due that were not made, as too many were under way.
    pub(crate) missed: u64,
    /// 50, 90, 99 and 99.9 per cent were faster than this, and the slowest.
    pub(crate) p50_ms: f64,
    /// See `p50_ms`.
    pub(crate) p90_ms: f64,
    /// See `p50_ms`.
    pub(crate) p99_ms: f64,
    /// See `p50_ms`.
    pub(crate) p999_ms: f64,
    /// See `p50_ms`.
    pub(crate) max_ms: f64,
    /// CPU seconds of each process asked for; none: it was not there.
    pub(crate) cpu_seconds: Vec<(u32, Option<f64>)>,
}

impl Report {
    pub(super) fn new(
        args: &LoadArgs,
        outcome: Outcome,
        cpu_seconds: Vec<(u32, Option<f64>)>,
    ) -> Self {
        let Outcome { elapsed, over_limit, errors, missed, latency } = outcome;
        let seconds = elapsed.as_secs_f64();
        let calls = latency.len().saturating_sub(errors);
        let calls_per_second = calls as f64 / seconds;
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            seconds,
            calls,
            calls_per_second,
            decisions_per_second: calls_per_second * args.descriptors as f64,
            over_limit,
            errors,
            missed,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: latency.max() as f64 / 1_000.0,
            cpu_seconds,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "calls        {:>12}   {:>10.0} /s", self.calls, self.calls_per_second)?;
        writeln!(f, "decisions    {:>12}   {:>10.0} /s", "", self.decisions_per_second)?;
        writeln!(f, "over limit   {:>12}", self.over_limit)?;
        writeln!(f, "errors       {:>12}", self.errors)?;
        if self.missed > 0 {
            writeln!(f, "not made     {:>12}   too many under way", self.missed)?;
        }
        let latencies = [
            ("p50", self.p50_ms),
            ("p90", self.p90_ms),
            ("p99", self.p99_ms),
            ("p99.9", self.p999_ms),
            ("max", self.max_ms),
        ];
        for (name, latency) in latencies {
            writeln!(f, "{name:<12} {latency:>12.2} ms")?;
        }
        for (pid, cpu) in &self.cpu_seconds {
            match cpu {
                Some(cpu) => writeln!(
                    f,
                    "process {pid}: {cpu:.2} CPU s, {:.0} calls per CPU s",
                    self.calls as f64 / cpu.max(0.01)
                )?,
                None => writeln!(f, "process {pid}: not there")?,
            }
        }
        Ok(())
    }
}
