//! Decisions asked at a steady rate, and how long each took from when it was due. Asks for clients of [`super::DOMAIN`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use crate::support::grpc::{Client, is_degraded};
use crate::support::tollgate::{Tollgate, request};
use crate::{DOMAIN, id};

/// Decisions per second.
const RATE: u32 = 500;

/// Somebody who asks until told to stop.
pub struct Pace {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Asked>,
}

/// What came of it.
pub struct Asked {
    /// Microseconds.
    latency: Histogram<u64>,
    /// Answered without the store, which was late.
    degraded: u64,
}

impl Asked {
    /// The latency that so many of a hundred do not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_percentile(percent))
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (half, most) = (self.percentile(50.0), self.percentile(99.0));
        let (count, longest) = (self.latency.len(), self.percentile(100.0));
        let degraded = self.degraded;
        write!(f, "{count} decisions, p50 {half:?}, p99 {most:?}, longest {longest:?}")?;
        write!(f, ", {degraded} of them without the store")
    }
}

impl Pace {
    /// Begins to ask the service at `address` for clients below `count`.
    pub fn begin(address: SocketAddr, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask(address, count, &stopped))
        });
        Self { stop, asking }
    }

    /// Ends it.
    pub fn end(self) -> Asked {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().unwrap()
    }

    /// Asks for so long.
    pub fn during(address: SocketAddr, count: usize, time: Duration) -> Asked {
        let pace = Self::begin(address, count);
        thread::sleep(time);
        pace.end()
    }
}

async fn ask(address: SocketAddr, count: usize, stop: &AtomicBool) -> Asked {
    let client = Client::new(Tollgate::channel(address).await);
    let mut due = interval_at(Instant::now(), Duration::from_secs(1) / RATE);
    let mut asked = Asked { latency: Histogram::new(3).unwrap(), degraded: 0 };
    let mut calls = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        let due = due.tick().await;
        let mut client = client.clone();
        let request = request(DOMAIN, &[&[("client_id", &id(fastrand::usize(..count)))]]);
        calls.spawn(async move {
            let answer = client.should_rate_limit(request).await.unwrap().into_inner();
            (due.elapsed(), is_degraded(&answer))
        });
        while let Some(answer) = calls.try_join_next() {
            asked.note(answer.unwrap());
        }
    }
    for answer in calls.join_all().await {
        asked.note(answer);
    }
    asked
}

impl Asked {
    fn note(&mut self, (latency, degraded): (Duration, bool)) {
        self.latency.record(latency.as_micros() as u64).unwrap();
        self.degraded += u64::from(degraded);
    }
}
