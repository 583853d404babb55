//! The load generator, `tollgate load`: sends requests to a rate-limit service, as fast as it
//! answers or at a fixed rate, and reports throughput and latency.
//!
//! At a fixed rate, latency counts from the time at which a request was due, not from the time at
//! which it was sent. The latency of a stalled server therefore includes the wait of the delayed
//! requests (no coordinated omission).

mod caller;
mod client;
mod cpu;
mod drive;
mod plan;
mod record;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use tollgate::verify::Traces;

use self::cpu::CpuClock;
use self::drive::Drive;
use self::plan::Plan;
use self::record::Record;
pub(crate) use self::report::Report;
use crate::tls_args::TlsArgs;

/// `tollgate load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// The rate-limit service
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub(crate) url: String,
    /// Duration of the measurement; a warm-up of a tenth of it comes first
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// HTTP/2 connections
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) connections: usize,
    /// Concurrent calls per connection; with --rate the maximum
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Calls per second over all connections; default: as fast as the service answers
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u64>,
    /// Number of different values of the key
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) keys: usize,
    /// Distribution of the values
    #[arg(long, value_enum, default_value_t = Spread::Uniform)]
    pub(crate) spread: Spread,
    /// Descriptors per request
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) descriptors: usize,
    /// Domain of the requests
    #[arg(long, default_value = "example")]
    pub(crate) domain: String,
    /// Key of the descriptors' entries
    #[arg(long, default_value = "remote_address")]
    pub(crate) key: String,
    /// Client threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Process whose CPU time to report; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// File for the record of all answered calls, the warm-up included, to check with
    /// `tollgate verify`
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Print the result as one line of JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

/// The distribution of the values of the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Spread {
    /// All values are equally frequent.
    Uniform,
    /// The frequency of the k-th value is proportional to 1/k.
    Zipf,
}

/// The reason why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The service cannot be reached at the URL.
    #[error("{url} cannot be reached: {cause}; write http://HOST:PORT")]
    Url {
        /// The URL as written.
        url: String,
        /// The cause.
        cause: String,
    },
    /// The flags for TLS cannot be used.
    #[error("{0}")]
    Tls(String),
    /// A number must be at least one.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The record cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The system refuses a thread or a runtime.
    #[error("the system refuses a thread")]
    System(#[from] std::io::Error),
}

/// Runs the load generator. Adds all answered calls to `traces`.
///
/// # Errors
/// Fails on invalid arguments, if the service cannot be reached, or if the record cannot be
/// written.
pub(crate) fn run(
    args: &LoadArgs,
    traces: Option<Traces>,
) -> Result<(Report, Option<Traces>), LoadError> {
    for (name, value) in [
        ("--connections", args.connections),
        ("--in-flight", args.in_flight),
        ("--keys", args.keys),
        ("--descriptors", args.descriptors),
        ("--threads", args.threads),
    ] {
        if value == 0 {
            return Err(LoadError::Zero(name));
        }
    }
    let cannot =
        |source| LoadError::Record { path: args.record.clone().unwrap_or_default(), source };
    let plan = Plan::new(args);
    let record = match (&args.record, traces) {
        (None, None) => None,
        (path, traces) => {
            Some(Record::create(plan.keys(), path.as_deref(), traces).map_err(cannot)?)
        }
    };
    let mut drive = Drive::connect(args, plan, record)?;
    drive.warm_up(args.duration / 10);
    let clocks: Vec<CpuClock> = args.pid.iter().map(|pid| CpuClock::start(*pid)).collect();
    let outcome = drive.measure(args.duration, !args.json);
    let cpu = clocks.iter().map(CpuClock::elapsed).collect();
    let traces = drive.into_record().map(Record::finish).transpose().map_err(cannot)?.flatten();
    Ok((Report::new(args, outcome, cpu), traces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_goes_up() {
        let clock = CpuClock::start(std::process::id());
        let begin = std::time::Instant::now();
        let mut busy = 0_u64;
        while begin.elapsed().as_millis() < 300 {
            busy = std::hint::black_box(busy.wrapping_add(1));
        }
        let (_, used) = clock.elapsed();
        assert!(used.is_some_and(|used| used > 0.05), "{used:?}");
        assert_eq!(CpuClock::start(u32::MAX).elapsed().1, None);
    }
}
