//! Callers that ask any replica, and another one when that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::domain::{Clock as _, Timestamp, WallClock};
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::verify::Trace;
use tonic::Status;

use crate::changes::other;
use crate::support::grpc::{Client, is_degraded};
use crate::support::tollgate::request;
use crate::watched::{VALUE, Watched};

/// The longest pause of a caller. 64 of them ask for several times what the limits allow.
const MAX_PAUSE: Duration = Duration::from_millis(40);

/// A call that a replica did not answer.
#[derive(Debug)]
pub struct Failure {
    pub replica: usize,
    pub sent: Timestamp,
    pub received: Timestamp,
    pub status: Status,
}

/// The calls of callers.
#[derive(Default)]
pub struct Seen {
    /// Of each watched limit.
    pub traces: Vec<Trace>,
    pub answers: u64,
    pub degraded: Vec<String>,
    pub failures: Vec<Failure>,
}

impl Seen {
    fn new(watched: usize) -> Self {
        Self { traces: vec![Trace::default(); watched], ..Self::default() }
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.traces.resize_with(other.traces.len(), Trace::default);
        for (trace, other) in self.traces.iter_mut().zip(&other.traces) {
            trace.merge(other);
        }
        self.answers += other.answers;
        self.degraded.extend(other.degraded);
        self.failures.extend(other.failures);
        self
    }
}

/// A request, and the watched limits that it meets.
struct Asked {
    request: RateLimitRequest,
    watched: Vec<usize>,
    /// It meets this limit alone, so a refusal is one of this limit.
    is_single: bool,
}

impl Asked {
    /// A random watched limit, often alone, otherwise with a second one or one that comes and goes.
    fn draw(all: &[Watched], random: &mut Rng) -> Self {
        let first = random.usize(..all.len());
        let domain = all[first].domain();
        let is_beside = |i: &usize| *i != first && all[*i].domain() == domain;
        let beside: Vec<usize> = (0..all.len()).filter(is_beside).collect();
        let second = (random.u32(..4) == 0).then(|| beside[random.usize(..beside.len())]);
        let watched: Vec<usize> = [first].into_iter().chain(second).collect();
        let keys: Vec<String> = watched.iter().map(|i| all[*i].key()).collect();
        let mut entries: Vec<[(&str, &str); 1]> =
            keys.iter().map(|key| [(&key[..], VALUE)]).collect();
        let (key, value) = other(random);
        if random.u32(..8) == 0 {
            entries.push([(key, &value)]);
        }
        let descriptors: Vec<&[(&str, &str)]> = entries.iter().map(|pair| &pair[..]).collect();
        let is_single = descriptors.len() == 1;
        Self { request: request(domain, &descriptors), watched, is_single }
    }
}

/// Asks the replicas behind `clients` until `end`.
pub async fn call_until(
    end: Instant,
    mut clients: Vec<Client>,
    all: Arc<[Watched]>,
    mut random: Rng,
) -> Seen {
    let mut seen = Seen::new(all.len());
    while Instant::now() < end {
        let asked = Asked::draw(&all, &mut random);
        let mut replica = random.usize(..clients.len());
        while !call(&mut clients, replica, &asked, &mut seen).await {
            replica = (replica + 1) % clients.len();
        }
        tokio::time::sleep(MAX_PAUSE.mul_f64(random.f64())).await;
    }
    seen
}

/// Returns true if the replica answers. A call that fails is neither admitted nor refused.
async fn call(clients: &mut [Client], replica: usize, asked: &Asked, seen: &mut Seen) -> bool {
    let sent = WallClock.now();
    let answer = clients[replica].should_rate_limit(asked.request.clone()).await;
    let received = WallClock.now();
    let answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            seen.failures.push(Failure { replica, sent, received, status });
            return false;
        }
    };
    seen.answers += 1;
    if is_degraded(&answer) {
        seen.degraded.push(format!("replica {replica}: {answer:?}"));
    }
    for i in &asked.watched {
        match answer.overall_code() {
            Code::Ok => seen.traces[*i].admit(sent, received, 1),
            _ if asked.is_single => seen.traces[*i].refuse(sent, received, 1),
            _ => {}
        }
    }
    true
}
