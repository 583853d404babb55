//! Callers at a fixed rate, and what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tollgate::domain::Timestamp;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::verify::{Promise, Trace};

use crate::support::grpc::{Client, is_degraded};
use crate::support::tollgate::request;

/// The time between two calls: 1000 a second.
const GAP: Duration = Duration::from_millis(1);

/// The clock of a trace at its start, so that no time is before 1970.
const ORIGIN: Duration = Duration::from_secs(1_000);

/// One call as its caller saw it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The key of its descriptor.
    pub key: &'static str,
    /// The time by which it was sent too late, because this machine was busy.
    pub lag: Duration,
    /// Times since the start of the run.
    pub sent: Duration,
    pub received: Duration,
    /// None: the call failed.
    pub admitted: Option<bool>,
    pub degraded: bool,
}

/// All calls of a run.
#[derive(Clone, Debug)]
pub struct Seen(pub Vec<Call>);

/// Callers that go on until they are stopped.
pub struct Callers {
    start: Instant,
    stop: Arc<AtomicBool>,
    /// Calls that were answered without the store.
    degraded: Arc<AtomicU64>,
    /// Calls that were answered by it.
    well: Arc<AtomicU64>,
    task: JoinHandle<Seen>,
}

impl Callers {
    /// Asks `clients` in turn for a value of each of `keys` in turn.
    pub fn start(clients: Vec<Client>, keys: &[&'static str]) -> Self {
        let (start, keys) = (Instant::now(), keys.to_vec());
        let stop = Arc::new(AtomicBool::new(false));
        let (degraded, well) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counts = (Arc::clone(&degraded), Arc::clone(&well));
        let task = tokio::spawn(drive(start, clients, keys, Arc::clone(&stop), counts));
        Self { start, stop, degraded, well, task }
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for so many more calls that are answered without the store.
    pub async fn degraded(&self, more: u64) {
        more_of(&self.degraded, more).await;
    }

    /// Waits for so many more calls that are answered by it.
    pub async fn well(&self, more: u64) {
        more_of(&self.well, more).await;
    }

    /// Waits until the store, which works again from now on, decides again: within two seconds.
    pub async fn back(&self) {
        let begun = Instant::now();
        self.well(500).await;
        let back = begun.elapsed();
        assert!(back < Duration::from_secs(2), "back after {back:?}");
    }

    /// Goes on for so long.
    pub async fn run(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn more_of(count: &AtomicU64, more: u64) {
    let (wanted, begun) = (count.load(Ordering::Relaxed) + more, Instant::now());
    while count.load(Ordering::Relaxed) < wanted {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for {wanted} calls");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn drive(
    start: Instant,
    clients: Vec<Client>,
    keys: Vec<&'static str>,
    stop: Arc<AtomicBool>,
    (degraded, well): (Arc<AtomicU64>, Arc<AtomicU64>),
) -> Seen {
    let (sender, mut calls) = mpsc::unbounded_channel();
    let mut due = start;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let planned = due.saturating_duration_since(start);
        due += GAP;
        let replica = turn % clients.len();
        let key = keys[turn / clients.len() % keys.len()];
        let (mut client, sender) = (clients[replica].clone(), sender.clone());
        let (degraded, well) = (Arc::clone(&degraded), Arc::clone(&well));
        tokio::spawn(async move {
            let sent = start.elapsed();
            let answer = client.should_rate_limit(request("d", &[&[(key, "v")]])).await;
            let received = start.elapsed();
            let answer = answer.map(tonic::Response::into_inner);
            if let Err(error) = &answer {
                eprintln!("a call failed: {error}");
            }
            let without = answer.as_ref().is_ok_and(is_degraded);
            if without { &degraded } else { &well }.fetch_add(1, Ordering::Relaxed);
            let admitted = answer.ok().map(|answer| answer.overall_code() == Code::Ok);
            let lag = sent.saturating_sub(planned);
            let call = Call { key, lag, sent, received, admitted, degraded: without };
            drop(sender.send(call));
        });
    }
    drop(sender);
    let mut seen = Vec::new();
    while let Some(call) = calls.recv().await {
        seen.push(call);
    }
    Seen(seen)
}

impl Seen {
    /// The calls sent in this span.
    pub fn between(&self, from: Duration, to: Duration) -> Self {
        let within = |call: &&Call| call.sent >= from && call.sent < to;
        Self(self.0.iter().filter(within).cloned().collect())
    }

    pub fn of_key(&self, key: &str) -> Self {
        Self(self.0.iter().filter(|call| call.key == key).cloned().collect())
    }

    pub fn degraded(&self) -> usize {
        self.0.iter().filter(|call| call.degraded).count()
    }

    /// No call has failed.
    pub fn assert_all_answered(&self) {
        let failed = self.0.iter().filter(|call| call.admitted.is_none()).count();
        assert_eq!(failed, 0, "of {} calls", self.0.len());
    }

    /// The time below which this share of the calls was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        quantile(self.0.iter().map(|call| call.received.saturating_sub(call.sent)).collect(), share)
    }

    /// The lag below which this share of the calls was sent.
    pub fn lag(&self, share: f64) -> Duration {
        quantile(self.0.iter().map(|call| call.lag).collect(), share)
    }

    /// All that was admitted keeps `bound` times the promise, such as `sliding_window 100/s`.
    pub fn assert_within(&self, promise: &str, bound: u32) {
        let at = |time: Duration| {
            Timestamp::from_micros(u64::try_from((ORIGIN + time).as_micros()).unwrap())
        };
        let mut trace = Trace::default();
        for call in &self.0 {
            match call.admitted {
                Some(true) => trace.admit(at(call.sent), at(call.received), 1),
                Some(false) => trace.refuse(at(call.sent), at(call.received), 1),
                None => {}
            }
        }
        let promise: Promise = promise.parse().unwrap();
        if let Err(broken) = promise.times(bound).check(&trace) {
            panic!("{broken:?}");
        }
    }
}

fn quantile(mut times: Vec<Duration>, share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}
