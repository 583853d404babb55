//! Holds over three replicas on one Redis: settlements are lost, doubled, late and sent to other
//! replicas, which are killed and started again. Callers count what they hold themselves: from the
//! answer until the release is sent, so never more than there is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::task::{JoinSet, spawn_blocking};
use tollgate::domain::Timestamp;
use tollgate::domain::clock::{Clock as _, WallClock};
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::verify::{Promise, Trace};

use crate::fleet::Fleet;
use crate::support::grpc::{Client, is_degraded, metadata, with_hits};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, request};
use crate::support::wait::until;
use crate::topologies::alone;

const CALLERS: usize = 64;
const MAX: u64 = 16;
const TTL: Duration = Duration::from_secs(2);
const TOKENS: u64 = 2_000;
const ESTIMATE: u64 = 4;
/// The longest time for which a request runs.
const MAX_RUN: Duration = Duration::from_millis(40);
/// The longest time for which this process does not run.
const LATE: Duration = Duration::from_millis(300);
const FROZEN: Duration = Duration::from_secs(1);

const POLICY: &str = "
domain: llm
descriptors:
  - key: job
    rate_limit: {name: jobs, algorithm: concurrency, max: 16, ttl: 2s}
  - key: user
    rate_limit: {name: tokens, algorithm: sliding_window, unit: hour, requests_per_unit: 2000,
                 hold: {ttl: 2s, estimate: {default: 4}}}
";

/// All that callers have seen.
#[derive(Debug, Default)]
struct Seen {
    live: AtomicU64,
    most_live: AtomicU64,
    /// The cost of all requests that were admitted.
    cost: AtomicU64,
    jobs: AtomicU64,
    refused: AtomicU64,
    degraded: AtomicU64,
    failed: AtomicU64,
    doubled: AtomicU64,
    lost: AtomicU64,
    /// The calls about tokens, as the checker of admissions takes them.
    tokens: Tokens,
}

/// Calls that are too many to be printed.
#[derive(Default)]
struct Tokens(Mutex<Trace>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls", self.0.lock().admitted())
    }
}

fn now() -> Timestamp {
    WallClock.now()
}

impl Seen {
    /// Notes a request about tokens. Without a settlement its estimate stays; one that may have come
    /// too late counts as if it had come in time.
    fn note(
        &self,
        admitted: (Timestamp, Timestamp),
        settled: Option<(Timestamp, Timestamp)>,
        cost: u64,
    ) {
        let mut tokens = self.tokens.0.lock();
        match settled {
            Some(settled) => tokens.settle(admitted, ESTIMATE, settled, cost),
            None => tokens.admit(admitted.0, admitted.1, ESTIMATE),
        }
    }

    /// The checker finds no window beyond this multiple of the limit.
    fn assert_tokens_hold(&self, bound: u32) {
        let promise: Promise = format!("sliding_window {TOKENS}/hour").parse().unwrap();
        let finding = promise.times(bound).finding(&self.tokens.0.lock());
        assert!(finding.holds() && finding.admitted > 100, "{finding:?}");
    }
}

fn add(to: &AtomicU64, number: u64) -> u64 {
    to.fetch_add(number, Ordering::SeqCst) + number
}

fn get(of: &AtomicU64) -> u64 {
    of.load(Ordering::SeqCst)
}

/// A caller of all replicas.
struct Caller {
    clients: Vec<Client>,
    random: Rng,
    seen: Arc<Seen>,
}

impl Caller {
    async fn call_until(mut self, end: Instant) {
        while Instant::now() < end {
            let is_job = self.random.bool();
            let entry = if is_job { ("job", "x") } else { ("user", "ann") };
            let (sent, asked) = (Instant::now(), now());
            let Some(handle) = self.admitted(entry).await else {
                tokio::time::sleep(MAX_RUN.mul_f64(self.random.f64() / 4.0)).await;
                continue;
            };
            let admitted = (asked, now());
            if is_job {
                add(&self.seen.jobs, 1);
                let live = add(&self.seen.live, 1);
                self.seen.most_live.fetch_max(live, Ordering::SeqCst);
            }
            let cost = self.random.u64(0..=ESTIMATE);
            add(&self.seen.cost, if is_job { 0 } else { cost });
            tokio::time::sleep(MAX_RUN.mul_f64(self.random.f64())).await;
            let fate = self.random.u32(..100);
            // It keeps its slot until the ttl, which began after the request was sent. It is
            // counted a little less long, as this process may wake up late.
            if fate < 4 {
                add(&self.seen.lost, 1);
                let until = sent + TTL.saturating_sub(LATE);
                tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
            }
            if is_job {
                self.seen.live.fetch_sub(1, Ordering::SeqCst);
            }
            let settles = now();
            match fate {
                // Lost.
                0..2 => {}
                4..30 => {
                    add(&self.seen.doubled, 1);
                    self.settle(entry, &handle, cost).await;
                    self.settle(entry, &handle, cost).await;
                }
                // Some of them late.
                _ => self.settle(entry, &handle, cost).await,
            }
            if !is_job {
                self.seen.note(admitted, (fate >= 2).then_some((settles, now())), cost);
            }
        }
    }

    /// The handle of an admitted request, of any replica that answers.
    async fn admitted(&mut self, entry: (&str, &str)) -> Option<String> {
        let asked = request("llm", &[&[entry]]);
        let at = self.random.usize(..self.clients.len());
        let Ok(answer) = self.clients[at].should_rate_limit(asked).await else {
            add(&self.seen.failed, 1);
            return None;
        };
        let answer = answer.into_inner();
        if is_degraded(&answer) {
            add(&self.seen.degraded, 1);
        }
        if answer.overall_code() != Code::Ok {
            add(&self.seen.refused, 1);
            return None;
        }
        Some(metadata(&answer)["hold"].as_str().expect("a handle").to_owned())
    }

    /// Settles at any replica, and at the next one if that does not answer.
    async fn settle(&mut self, entry: (&str, &str), handle: &str, cost: u64) {
        let ended = with_hits(request("llm", &[&[entry, ("hold", handle)]]), cost);
        let first = self.random.usize(..self.clients.len());
        for i in 0..self.clients.len() {
            let at = (first + i) % self.clients.len();
            if let Ok(answer) = self.clients[at].should_rate_limit(ended.clone()).await {
                let code = answer.into_inner().overall_code();
                assert_eq!(code, Code::Ok, "every replica knows the key of handles");
                return;
            }
        }
    }
}

fn start_callers(end: Instant, fleet: &Fleet, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (clients, random, seen) = (fleet.clients(), Rng::new(), Arc::clone(seen));
        callers.spawn(Caller { clients, random, seen }.call_until(end));
    }
    callers
}

/// Waits until no slot is taken.
async fn until_free(fleet: &Fleet) {
    let mut client = fleet.clients().remove(0);
    let peek = with_hits(request("llm", &[&[("job", "x")]]), 0);
    until("every slot is free", async || {
        let answer = client.should_rate_limit(peek.clone()).await.ok()?.into_inner();
        (u64::from(answer.statuses[0].limit_remaining) == MAX).then_some(())
    })
    .await;
}

fn options(redis: &RedisServer) -> Options {
    Options::serving(POLICY)
        .redis(redis.url())
        .set("grpc.cores=1")
        .set("holds.secret=the-same-on-all-replicas")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_never_hold_more_than_there_is() {
    let _alone = alone().await;
    let Some(redis) = RedisServer::start() else { return };
    // Time enough: every call is decided by Redis.
    let mut fleet = Fleet::start(&options(&redis).set("store.deadline=5s"));
    let (seen, end) = (Arc::<Seen>::default(), Instant::now() + Duration::from_secs(6));
    let callers = start_callers(end, &fleet, &seen);
    let killing = spawn_blocking(move || {
        fleet.kill_until(end, &mut Rng::new());
        fleet
    });
    callers.join_all().await;
    let mut fleet = killing.await.unwrap();
    println!("{seen:?}, {} kills", fleet.outages.len());
    until_free(&fleet).await;
    spawn_blocking(move || {
        fleet.end();
        assert_eq!(fleet.errors, [""; 0]);
        assert!(fleet.outages.len() >= 3, "{} kills", fleet.outages.len());
    })
    .await
    .unwrap();
    assert_eq!(get(&seen.degraded), 0, "decided without Redis");
    let (live, cost) = (get(&seen.most_live), get(&seen.cost));
    assert!(live <= MAX, "{live} live slots");
    assert!(cost <= TOKENS, "{cost} tokens");
    seen.assert_tokens_hold(1);
    // Enough was done to say so.
    assert!(live > MAX / 2 && cost >= TOKENS / 4, "{live} live slots, {cost} tokens");
    let done = [&seen.jobs, &seen.refused, &seen.doubled, &seen.lost].map(get);
    assert!(done.iter().all(|times| *times >= 10), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_redis_lets_at_most_twice_as_many_run() {
    let _alone = alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let mut fleet = Fleet::start(&options(&redis));
    let (seen, begun) = (Arc::<Seen>::default(), Instant::now());
    let callers = start_callers(begun + Duration::from_secs(7), &fleet, &seen);
    let running = spawn_blocking(move || {
        fleet.kill_until(begun + Duration::from_secs(2), &mut Rng::new());
        std::thread::sleep(Duration::from_secs(1));
        redis.pause();
        std::thread::sleep(FROZEN);
        redis.resume();
        (fleet, redis)
    });
    let (mut fleet, _redis) = running.await.unwrap();
    assert!(get(&seen.degraded) > 0, "Redis has decided all");
    callers.join_all().await;
    println!("{seen:?}, {} kills", fleet.outages.len());
    until_free(&fleet).await;
    let errors = spawn_blocking(move || {
        fleet.end();
        fleet.errors
    });
    assert_eq!(errors.await.unwrap(), [""; 0]);
    let (live, cost) = (get(&seen.most_live), get(&seen.cost));
    assert!(live <= 2 * MAX, "{live} live slots");
    assert!(cost <= 2 * TOKENS, "{cost} tokens");
    seen.assert_tokens_hold(2);
    assert!(live > MAX / 2 && get(&seen.refused) > 0, "{live} live slots");
}
