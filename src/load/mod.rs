//! The load generator, `tollgate load`: asks a rate-limit service as fast as it answers, or at a given rate, and says how
//! it went.
//!
//! At a given rate latency counts from when a request was due, not from when it was sent: a server that stalls is charged
//! for the requests that waited.

mod cpu;
mod drive;
mod plan;
mod report;

use std::time::Duration;

use clap::{Args, ValueEnum};

use self::cpu::CpuClock;
use self::report::Report;

use self::drive::Drive;
use self::plan::Plan;

/// `tollgate load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// The service to ask
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub(crate) url: String,
    /// How long, after a tenth of that to warm up
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// HTTP/2 connections
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) connections: usize,
    /// Calls under way at once on each connection; at a given rate the most there may be
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Calls per second over all connections; left out: as many as are answered
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u64>,
    /// Different values of the key
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) keys: usize,
    /// How often each value comes
    #[arg(long, value_enum, default_value_t = Spread::Uniform)]
    pub(crate) spread: Spread,
    /// Descriptors of each request
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) descriptors: usize,
    /// The domain to ask about
    #[arg(long, default_value = "example")]
    pub(crate) domain: String,
    /// The key of each descriptor's entry
    #[arg(long, default_value = "remote_address")]
    pub(crate) key: String,
    /// Threads that ask
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
    /// Processes whose CPU time to report; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// Print the result as one line of JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

/// How often each value of the key comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Spread {
    /// All alike.
    Uniform,
    /// The k-th as often as the first divided by k.
    Zipf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The URL names no service.
    #[error("{url} cannot be asked: {source}; write http://HOST:PORT")]
    Url {
        /// As written.
        url: String,
        /// What is wrong.
        source: tonic::transport::Error,
    },
    /// A number must be at least one.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The system refuses a thread or a runtime.
    #[error("the system refuses a thread")]
    System(#[from] std::io::Error),
}

/// Asks as `args` say.
///
/// # Errors
/// Arguments that make no sense, a service that cannot be connected to.
pub(crate) fn run(args: &LoadArgs) -> Result<Report, LoadError> {
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
    let plan = Plan::new(args);
    let drive = Drive::connect(args, plan)?;
    drive.warm_up(args.duration / 10);
    let clocks: Vec<CpuClock> = args.pid.iter().map(|pid| CpuClock::start(*pid)).collect();
    let outcome = drive.measure(args.duration, !args.json);
    let cpu = clocks.iter().map(CpuClock::elapsed).collect();
    Ok(Report::new(args, outcome, cpu))
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
