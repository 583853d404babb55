//! Primaries that freeze, die and hand over: every call is answered in time, the slots of other
//! primaries are not affected, and the promoted replica decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tollgate::domain::Key;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::cluster::RedisCluster;
use crate::support::grpc::{Client, ask, is_degraded};
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait;

const LIMIT: usize = 50;
const POLICIES: &str = "
domain: d
descriptors:
  - key: k
    rate_limit: {unit: second, requests_per_unit: 50, algorithm: sliding_window}
";

/// Longer than a call takes whatever this machine does: the deadline, and what a busy one adds.
const IN_TIME: Duration = Duration::from_millis(300);

/// One call as its caller saw it.
#[derive(Clone, Copy)]
struct Call {
    sent: Duration,
    received: Duration,
    admitted: bool,
    degraded: bool,
}

/// A caller of one value, ten times as often as the limit takes, until it is stopped.
struct Caller {
    begin: Instant,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Call>>>,
    task: JoinHandle<()>,
}

impl Caller {
    fn start(client: &Client, value: &str) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Call>>>::default());
        let (begin, value, mut client) = (Instant::now(), value.to_owned(), client.clone());
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let sent = begin.elapsed();
                let answer = ask(&mut client, request("d", &[&[("k", &value)]])).await;
                let received = begin.elapsed();
                let admitted = answer.overall_code() == Code::Ok;
                noted.lock().push(Call {
                    sent,
                    received,
                    admitted,
                    degraded: is_degraded(&answer),
                });
                // A denial is remembered for a moment; this is about those that are not.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { begin, stop, seen, task }
    }

    /// Waits for so many calls, sent from now on, that the store decides, or does not.
    async fn wait(&self, degraded: bool, count: usize) {
        let now = self.begin.elapsed();
        let of_kind = |call: &&Call| call.sent >= now && call.degraded == degraded;
        wait::until("calls", async || {
            (self.seen.lock().iter().filter(of_kind).count() >= count).then_some(())
        })
        .await;
    }

    async fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        Arc::try_unwrap(self.seen).ok().unwrap().into_inner()
    }
}

/// A value whose counter is at the `part`-th primary.
pub fn value_in(part: usize) -> String {
    let is_there = |value: &String| {
        let slot = usize::from(Key::new(format!("{{d|k={value}}}").into_bytes()).slot());
        (16_384 * part / 3..16_384 * (part + 1) / 3).contains(&slot)
    };
    (0..1_000).map(|i| format!("v{i}")).find(is_there).unwrap()
}

pub fn tollgate_on(cluster: &RedisCluster, policies: &str) -> Options {
    Options::serving(policies)
        .set("redis.topology=cluster")
        .set(format!("redis.nodes={}", cluster.addresses()))
        .set("grpc.cores=1")
        .set("failover.replicas=1")
}

/// The share of the calls that the store did not decide.
fn degraded(calls: &[Call]) -> f64 {
    calls.iter().filter(|call| call.degraded).count() as f64 / calls.len() as f64
}

fn assert_in_time(calls: &[Call]) {
    let slow = calls.iter().filter(|call| call.received > call.sent + IN_TIME).count();
    assert!(slow * 200 <= calls.len(), "{slow} of {} calls were late", calls.len());
}

/// No window has more than so many times the limit for certain.
fn assert_within(calls: &[Call], bound: usize) {
    let admitted: Vec<&Call> = calls.iter().filter(|call| call.admitted).collect();
    for (i, first) in admitted.iter().enumerate() {
        let end = first.sent + Duration::from_secs(1);
        let within = admitted[i..].iter().take_while(|call| call.received < end).count();
        assert!(within <= bound * LIMIT, "{within} in a second from {:?}", first.sent);
    }
}

struct Stage {
    cluster: RedisCluster,
    tollgate: Tollgate,
    /// Of the primary that fails, and of another one.
    callers: [Caller; 2],
}

async fn stage(full_coverage: &str, replicas: usize) -> Option<Stage> {
    let args = ["--cluster-require-full-coverage", full_coverage];
    let cluster = RedisCluster::start_with(replicas, &args)?;
    // A stall of a machine with eight servers on it is no loss of a node.
    let options = tollgate_on(&cluster, POLICIES).set("store.deadline=40ms");
    let tollgate = options.set("deny_cache.max_keys=0").start();
    let client = tollgate.client().await;
    let callers = [0, 1].map(|part| Caller::start(&client, &value_in(part)));
    for caller in &callers {
        caller.wait(false, 200).await;
    }
    Some(Stage { cluster, tollgate, callers })
}

impl Stage {
    /// Checks what must hold whatever has happened.
    async fn end(self) -> [Vec<Call>; 2] {
        let [failed, other] = self.callers;
        let calls = [failed.stop().await, other.stop().await];
        for calls in &calls {
            assert_in_time(calls);
            assert_within(calls, 2);
        }
        assert_eq!(self.tollgate.errors(), Vec::<String>::new());
        calls
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_primary_affects_only_its_slots_and_its_replica_takes_over() {
    let Some(stage) = stage("no", 1).await else { return };
    let [failed, other] = &stage.callers;
    stage.cluster.nodes[0].pause();
    failed.wait(true, 50).await;
    let lost = failed.begin.elapsed();
    let cluster = &stage.cluster;
    tokio::task::block_in_place(|| cluster.wait_until_primary(3));
    failed.wait(false, 200).await;
    let back = failed.begin.elapsed();
    // The old primary is no primary when it comes back, and nobody asks it.
    stage.cluster.nodes[0].resume();
    failed.wait(false, 200).await;
    other.wait(false, 200).await;
    let [failed, other] = stage.end().await;
    let away: Vec<Call> =
        other.into_iter().filter(|call| call.sent > lost && call.sent < back).collect();
    assert!(degraded(&away) < 0.05, "{} of the other slots", degraded(&away));
    let after: Vec<Call> = failed.into_iter().filter(|call| call.sent > back).collect();
    assert!(degraded(&after) < 0.05, "{} after the promotion", degraded(&after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_primary_with_full_coverage_is_a_loss_until_its_replica_takes_over() {
    let Some(mut stage) = stage("yes", 1).await else { return };
    stage.cluster.nodes[0].stop();
    stage.callers[0].wait(true, 50).await;
    let cluster = &stage.cluster;
    tokio::task::block_in_place(|| cluster.wait_until_primary(3));
    for caller in &stage.callers {
        caller.wait(false, 200).await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_primary_with_full_coverage_is_a_loss_until_it_goes_on() {
    let Some(stage) = stage("yes", 0).await else { return };
    stage.cluster.nodes[0].pause();
    // The other nodes refuse their own slots, too, once they have noticed.
    for caller in &stage.callers {
        caller.wait(true, 50).await;
    }
    stage.cluster.nodes[0].resume();
    for caller in &stage.callers {
        caller.wait(false, 200).await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_that_is_gone_for_good_affects_only_its_slots() {
    let Some(mut stage) = stage("no", 0).await else { return };
    stage.cluster.nodes[0].stop();
    let [failed, other] = &stage.callers;
    failed.wait(true, 50).await;
    let lost = failed.begin.elapsed();
    // Longer than the others need to count it as failed.
    other.wait(false, 1_500).await;
    let [failed, other] = stage.end().await;
    let away = |calls: Vec<Call>| -> Vec<Call> {
        calls.into_iter().filter(|call| call.sent > lost).collect()
    };
    let (failed, other) = (away(failed), away(other));
    assert!(failed.iter().all(|call| call.degraded), "{}", degraded(&failed));
    assert!(degraded(&other) < 0.05, "{} of the other slots", degraded(&other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_hands_over_in_time() {
    let Some(stage) = stage("no", 1).await else { return };
    stage.cluster.fail_over(3);
    let cluster = &stage.cluster;
    tokio::task::block_in_place(|| cluster.wait_until_primary(3));
    for caller in &stage.callers {
        caller.wait(false, 300).await;
    }
    let [failed, _] = stage.end().await;
    assert!(degraded(&failed) < 0.7, "{}", degraded(&failed));
}
