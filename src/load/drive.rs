//! The driver: connections on a few threads, and the result of their calls.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hdrhistogram::Histogram;
use tokio::runtime::{Builder, Runtime};

use super::caller::{self, Asked, Tally, Terms};
use super::client::{BadTarget, Fault, Line, Target};
use super::plan::Plan;
use super::record::Record;
use super::{LoadArgs, LoadError};

/// The connections of a thread; `None` in place of one that was lost.
type Lines = Vec<Option<Line<Asked>>>;

/// Significant digits of latencies.
const DIGITS: u8 = 3;
/// Maximum recorded latency: one minute.
const MAX_LATENCY_US: u64 = 60_000_000;

/// The result of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) elapsed: Duration,
    pub(super) over_limit: u64,
    pub(super) errors: u64,
    /// The reason of the first error.
    pub(super) fault: Option<Fault>,
    /// Calls that were due but not sent, because `in_flight` was reached.
    pub(super) missed: u64,
    /// Latencies of all answered calls in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// Open connections and the requests to send over them.
pub(super) struct Drive {
    threads: Vec<(Runtime, Lines)>,
    target: Target,
    plan: Plan,
    in_flight: usize,
    /// The time between two calls of a connection; `None` for a closed loop.
    gap: Option<Duration>,
    /// The record of all calls, those of the warm-up included.
    record: Option<Record>,
}

impl Drive {
    pub(super) fn connect(
        args: &LoadArgs,
        plan: Plan,
        record: Option<Record>,
    ) -> Result<Self, LoadError> {
        let unreachable = |cause| LoadError::Url { url: args.url.clone(), cause };
        let target = Target::new(&args.url, &args.tls).map_err(|bad| match bad {
            BadTarget::Url(cause) => unreachable(cause),
            BadTarget::Tls(cause) => LoadError::Tls(cause),
        })?;
        let mut threads: Vec<(Runtime, Lines)> = Vec::new();
        for _ in 0..args.threads.min(args.connections) {
            threads.push((Builder::new_current_thread().enable_all().build()?, Vec::new()));
        }
        let count = threads.len();
        for i in 0..args.connections {
            let Some((runtime, lines)) = threads.get_mut(i % count) else { break };
            let connected = runtime.block_on(Line::connect(&target, args.in_flight));
            lines.push(Some(connected.map_err(|fault| unreachable(fault.to_string()))?));
        }
        let per_connection =
            |rate: u64| Duration::from_secs_f64(args.connections as f64 / rate.max(1) as f64);
        Ok(Self {
            threads,
            target,
            plan,
            in_flight: args.in_flight,
            gap: args.rate.map(per_connection),
            record,
        })
    }

    /// The record of all calls.
    pub(super) fn into_record(self) -> Option<Record> {
        self.record
    }

    pub(super) fn warm_up(&mut self, duration: Duration) {
        self.run(duration, &Tally::default());
    }

    /// Sends requests for `duration`; prints progress every second if `show`.
    pub(super) fn measure(&mut self, duration: Duration, show: bool) -> Outcome {
        let tally = Tally::default();
        let begin = Instant::now();
        let latency = thread::scope(|scope| {
            let progress = scope.spawn(|| {
                if show {
                    tally.show(begin, duration);
                }
            });
            let latency = self.run(duration, &tally);
            let _ = progress.join();
            latency
        });
        Outcome {
            elapsed: begin.elapsed(),
            over_limit: tally.over_limit.load(Ordering::Relaxed),
            errors: tally.errors.load(Ordering::Relaxed),
            fault: tally.fault.get().cloned(),
            missed: tally.missed.load(Ordering::Relaxed),
            latency,
        }
    }

    fn run(&mut self, duration: Duration, tally: &Tally) -> Histogram<u64> {
        let Self { threads, target, plan, in_flight, gap, record } = self;
        let (in_flight, gap, end) = (*in_flight, *gap, Instant::now() + duration);
        let terms = Terms { target, plan, in_flight, gap, end, tally };
        let record = record.as_ref();
        let histograms = thread::scope(|scope| {
            let threads: Vec<_> = threads
                .iter_mut()
                .map(|(runtime, lines)| {
                    scope.spawn(move || run_thread(runtime, lines, &terms, record))
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
        });
        sum(histograms)
    }
}

fn run_thread(
    runtime: &Runtime,
    lines: &mut Lines,
    terms: &Terms<'_>,
    record: Option<&Record>,
) -> Histogram<u64> {
    let recorder = record.map(Record::recorder);
    let recorder = recorder.as_ref();
    let callers: FuturesUnordered<_> =
        lines.iter_mut().map(|line| caller::run(line, terms, recorder)).collect();
    sum(runtime.block_on(callers.collect::<Vec<_>>()))
}

fn sum(histograms: Vec<Histogram<u64>>) -> Histogram<u64> {
    let mut all = histogram();
    for histogram in histograms {
        // All histograms have the same bounds, so this cannot fail.
        let _ = all.add(histogram);
    }
    all
}

impl Tally {
    fn show(&self, begin: Instant, duration: Duration) {
        let mut before = 0;
        for second in 1..=duration.as_secs() {
            thread::sleep(
                (begin + Duration::from_secs(second)).saturating_duration_since(Instant::now()),
            );
            let answered = self.answered.load(Ordering::Relaxed);
            let errors = self.errors.load(Ordering::Relaxed);
            let total = duration.as_secs();
            eprintln!(
                "{second:>4} of {total} s   {:>9} calls/s   {errors} errors",
                answered - before
            );
            before = answered;
        }
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants that the crate accepts")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MAX_LATENCY_US, DIGITS).expect("constants in range")
}

pub(super) fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}
