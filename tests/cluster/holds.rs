//! Holds while the slots of their counters move: callers count what they hold, from the answer until
//! the release is sent, so never more than there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tollgate::domain::Key;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::failed::tollgate_on;
use crate::support::cluster::RedisCluster;
use crate::support::grpc::{Client, ask, is_degraded, metadata, with_hits};
use crate::support::operator::Operator;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;

const POLICY: &str = "
domain: d
descriptors:
  - key: job
    rate_limit: {name: jobs, algorithm: concurrency, max: 5, ttl: 10m}
  - key: user
    rate_limit: {name: tokens, algorithm: sliding_window, unit: day, requests_per_unit: 100000,
                 hold: {ttl: 10m, estimate: {default: 9}}}
";

const MAX: u64 = 5;
const CALLERS: u64 = 24;
const TOKENS: u64 = 100_000;

#[derive(Debug, Default)]
struct Seen {
    live: AtomicU64,
    most_live: AtomicU64,
    admitted: AtomicU64,
    refused: AtomicU64,
    cost: AtomicU64,
}

/// One limit after the other, whose counters are in slots of their own.
async fn hold(mut client: Client, number: u64, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    let mut random = Rng::with_seed(number);
    let add = |to: &AtomicU64, number| to.fetch_add(number, Ordering::SeqCst) + number;
    while !stop.load(Ordering::Relaxed) {
        let is_job = random.bool();
        let entry = if is_job { ("job", "x") } else { ("user", "ann") };
        let answer = ask(&mut client, request("d", &[&[entry]])).await;
        assert!(!is_degraded(&answer), "{answer:?}");
        if answer.overall_code() != Code::Ok {
            add(&seen.refused, 1);
            tokio::time::sleep(Duration::from_millis(random.u64(1..10))).await;
            continue;
        }
        add(&seen.admitted, 1);
        let slots = u64::from(is_job);
        seen.most_live.fetch_max(add(&seen.live, slots), Ordering::SeqCst);
        let handle = metadata(&answer)["hold"].as_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(random.u64(0..20))).await;
        seen.live.fetch_sub(slots, Ordering::SeqCst);
        let cost = random.u64(0..=9);
        add(&seen.cost, if is_job { 0 } else { cost });
        let end = with_hits(request("d", &[&[entry, ("hold", &*handle)]]), cost);
        // Some are delivered twice.
        for _ in 0..=u32::from(random.u32(..10) == 0) {
            ask(&mut client, end.clone()).await;
        }
    }
}

/// The hits that are left of a limit.
async fn left(tollgate: &Tollgate, entry: (&str, &str)) -> u64 {
    let told = Operator::of(tollgate).await.explain(request("d", &[&[entry]])).await;
    told.descriptors[0].counters[0].remaining()
}

fn start(cluster: &RedisCluster) -> Tollgate {
    let options: Options = tollgate_on(cluster, POLICY).set("store.deadline=5s");
    options.set("redis.response_timeout=10s").start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_are_settled_once_while_their_slots_move() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let replicas = [start(&cluster), start(&cluster)];
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let client = replicas[number as usize % 2].client().await;
        callers.spawn(hold(client, number, Arc::clone(&stop), Arc::clone(&seen)));
    }
    let slots = ["job=x", "user=ann"]
        .map(|counter| Key::new(format!("{{d|{counter}}}").into_bytes()).slot());
    let moves = tokio::task::spawn_blocking(move || {
        for round in 0..20 {
            let slot = slots[round % 2];
            let from = cluster.owner(slot);
            cluster.move_slot(slot, from, (from + 1) % 3);
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster
    });
    let cluster = moves.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let get = |of: &AtomicU64| of.load(Ordering::SeqCst);
    assert!(get(&seen.most_live) <= MAX, "{seen:?}");
    assert!(get(&seen.admitted) > 200 && get(&seen.refused) > 50, "{seen:?}");
    let cost = get(&seen.cost);
    until("all is settled", async || {
        // The request that is explained would take one slot, and its estimate.
        let jobs = left(&replicas[0], ("job", "x")).await;
        let tokens = left(&replicas[1], ("user", "ann")).await;
        ((jobs, tokens) == (MAX - 1, TOKENS - cost - 9)).then_some(())
    })
    .await;
    for replica in &replicas {
        assert_eq!(replica.errors(), [""; 0]);
        assert_eq!(replica.metric("tollgate_unsettled_holds_total"), Some(0.0));
    }
    drop(cluster);
}
