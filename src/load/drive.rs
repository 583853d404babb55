//! The driver: sends requests over connections on a few threads, in a closed loop or at a fixed
//! rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hdrhistogram::Histogram;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};

use super::plan::Plan;
use super::record::{Record, Recorder};
use super::{LoadArgs, LoadError};
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;

type Client = RateLimitServiceClient<Channel>;

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
    /// Calls that were due but not sent, because `in_flight` was reached.
    pub(super) missed: u64,
    /// Latencies of all answered calls in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// Open connections and the requests to send over them.
#[derive(Debug)]
pub(super) struct Drive {
    threads: Vec<(Runtime, Vec<Client>)>,
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
        let bad = |source| LoadError::Url { url: args.url.clone(), source };
        let mut threads: Vec<(Runtime, Vec<Client>)> = Vec::new();
        for _ in 0..args.threads.min(args.connections) {
            threads.push((Builder::new_current_thread().enable_all().build()?, Vec::new()));
        }
        let count = threads.len();
        for i in 0..args.connections {
            let Some((runtime, clients)) = threads.get_mut(i % count) else { break };
            let endpoint = Endpoint::from_shared(args.url.clone()).map_err(bad)?.tcp_nodelay(true);
            let endpoint = args.tls.apply(endpoint).map_err(LoadError::Tls)?;
            let channel = runtime.block_on(endpoint.connect()).map_err(bad)?;
            clients.push(Client::new(channel));
        }
        let per_connection =
            |rate: u64| Duration::from_secs_f64(args.connections as f64 / rate.max(1) as f64);
        Ok(Self {
            threads,
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

    pub(super) fn warm_up(&self, duration: Duration) {
        self.run(duration, &Tally::default());
    }

    /// Sends requests for `duration`; prints progress every second if `show`.
    pub(super) fn measure(&self, duration: Duration, show: bool) -> Outcome {
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
            missed: tally.missed.load(Ordering::Relaxed),
            latency,
        }
    }

    fn run(&self, duration: Duration, tally: &Tally) -> Histogram<u64> {
        let end = Instant::now() + duration;
        let histograms = thread::scope(|scope| {
            let threads: Vec<_> = self
                .threads
                .iter()
                .map(|(runtime, clients)| {
                    scope.spawn(|| self.run_thread(runtime, clients, end, tally))
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
        });
        let mut all = histogram();
        for histogram in histograms {
            // All histograms have the same bounds, so this cannot fail.
            let _ = all.add(histogram);
        }
        all
    }

    fn run_thread(
        &self,
        runtime: &Runtime,
        clients: &[Client],
        end: Instant,
        tally: &Tally,
    ) -> Histogram<u64> {
        let recorder = self.record.as_ref().map(Record::recorder);
        let caller = |client: &Client| Caller {
            client: client.clone(),
            plan: &self.plan,
            tally,
            recorder: recorder.as_ref(),
        };
        let tasks = clients.iter().map(|client| {
            let caller = caller(client);
            async move {
                match self.gap {
                    None => self.closed(&caller, end).await,
                    Some(gap) => self.open(&caller, gap, end).await,
                }
            }
        });
        let mut all = histogram();
        for histogram in runtime.block_on(futures_util::future::join_all(tasks)) {
            let _ = all.add(histogram);
        }
        all
    }

    /// A closed loop: each answer is followed by the next call.
    async fn closed(&self, caller: &Caller<'_>, end: Instant) -> Histogram<u64> {
        let callers = (0..self.in_flight).map(|_| async {
            let (mut caller, mut random) = (caller.clone(), fastrand::Rng::new());
            let mut latency = histogram();
            while Instant::now() < end {
                let due = Instant::now();
                caller.ask(&mut random).await;
                latency.saturating_record(micros(due.elapsed()));
            }
            latency
        });
        let mut all = histogram();
        for latency in futures_util::future::join_all(callers).await {
            let _ = all.add(latency);
        }
        all
    }

    /// An open loop: a call is due every `gap`, independent of earlier calls.
    async fn open(&self, caller: &Caller<'_>, gap: Duration, end: Instant) -> Histogram<u64> {
        let permits = Arc::new(Semaphore::new(self.in_flight));
        let (sender, mut latencies) = tokio::sync::mpsc::unbounded_channel();
        let mut random = fastrand::Rng::new();
        let mut due = Instant::now();
        let mut calls = FuturesUnordered::new();
        while due < end {
            let wait = tokio::time::sleep_until(due.into());
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    biased;
                    () = &mut wait => break,
                    Some(()) = calls.next() => {}
                }
            }
            match Arc::clone(&permits).try_acquire_owned() {
                Err(_) => {
                    caller.tally.missed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(permit) => {
                    let (mut caller, mut random) = (caller.clone(), random.fork());
                    let sender = sender.clone();
                    calls.push(async move {
                        caller.ask(&mut random).await;
                        drop(permit);
                        let _ = sender.send(micros(due.elapsed()));
                    });
                }
            }
            due += gap;
        }
        while calls.next().await.is_some() {}
        drop(sender);
        let mut all = histogram();
        while let Some(latency) = latencies.recv().await {
            all.saturating_record(latency);
        }
        all
    }
}

/// The counts of all threads.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    over_limit: AtomicU64,
    errors: AtomicU64,
    missed: AtomicU64,
}

/// One connection, and what calls over it need and leave.
#[derive(Clone)]
struct Caller<'a> {
    client: Client,
    plan: &'a Plan,
    tally: &'a Tally,
    recorder: Option<&'a Recorder<'a>>,
}

impl Caller<'_> {
    /// Sends one request and counts its answer. A call without an answer is not recorded: its hits
    /// may be charged, but nothing was admitted.
    async fn ask(&mut self, random: &mut fastrand::Rng) {
        let values = self.plan.draw(random);
        let request = self.plan.request(&values);
        let sent = self.recorder.map(Recorder::now);
        match self.client.should_rate_limit(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                if let (Some(recorder), Some(sent)) = (self.recorder, sent) {
                    recorder.add(&values, sent, &answer);
                }
                self.tally.answered.fetch_add(1, Ordering::Relaxed);
                if answer.overall_code() == Code::OverLimit {
                    self.tally.over_limit.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => {
                self.tally.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
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
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MAX_LATENCY_US, DIGITS).expect("constants in range")
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}
