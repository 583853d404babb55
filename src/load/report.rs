//! The report of a run, as a table or as JSON.

use std::fmt;

use serde::Serialize;

use super::LoadArgs;
use super::drive::Outcome;

/// The report of a run. Latencies are in milliseconds, from the time at which a call was due.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Duration of the measurement in seconds.
    pub(crate) seconds: f64,
    /// Number of answers.
    pub(crate) calls: u64,
    /// Answers per second.
    pub(crate) calls_per_second: f64,
    /// Descriptors decided per second.
    pub(crate) decisions_per_second: f64,
    /// Number of answers OVER_LIMIT.
    pub(crate) over_limit: u64,
    /// Number of failed calls.
    pub(crate) errors: u64,
    /// Reason of the first error.
    #[serde(skip)]
    pub(crate) fault: Option<String>,
    /// Number of calls that were due but not sent, because too many were in flight.
    pub(crate) missed: u64,
    /// Median latency.
    pub(crate) p50_ms: f64,
    /// 90th percentile of latency.
    pub(crate) p90_ms: f64,
    /// 99th percentile of latency.
    pub(crate) p99_ms: f64,
    /// 99.9th percentile of latency.
    pub(crate) p999_ms: f64,
    /// Maximum latency.
    pub(crate) max_ms: f64,
    /// CPU seconds by process; `None` if the process does not exist.
    pub(crate) cpu_seconds: Vec<(u32, Option<f64>)>,
}

impl Report {
    pub(super) fn new(
        args: &LoadArgs,
        outcome: Outcome,
        cpu_seconds: Vec<(u32, Option<f64>)>,
    ) -> Self {
        let Outcome { elapsed, over_limit, errors, fault, missed, latency } = outcome;
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
            fault: fault.map(|fault| fault.to_string()),
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
        write!(f, "errors       {:>12}", self.errors)?;
        self.fault.iter().try_for_each(|fault| write!(f, "   the first: {fault}"))?;
        writeln!(f)?;
        if self.missed > 0 {
            writeln!(f, "not sent     {:>12}   too many in flight", self.missed)?;
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
                None => writeln!(f, "process {pid}: does not exist")?,
            }
        }
        Ok(())
    }
}
