//! Slots that move under load, held against the promises by the checker of admissions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tollgate::domain::Key;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::verify::{Promise, Trace};

use crate::asked::now;
use crate::failed::tollgate_on;
use crate::support::cluster::RedisCluster;
use crate::support::grpc::{Client, ask, is_degraded};
use crate::support::tollgate::request;

const POLICIES: &str = "
domain: d
descriptors:
  - {key: sliding, rate_limit: {unit: second, requests_per_unit: 50, algorithm: sliding_window}}
  - {key: fixed, rate_limit: {unit: second, requests_per_unit: 50, algorithm: fixed_window}}
  - {key: bucket, rate_limit: {unit: second, requests_per_unit: 50, algorithm: token_bucket, burst: 20}}
";
const LIMITS: [(&str, &str); 3] = [
    ("sliding", "sliding_window 50/s"),
    ("fixed", "fixed_window 50/s"),
    ("bucket", "token_bucket 50/s burst 20"),
];

/// Asks for these keys until it is stopped; the calls by key. A request of several keys that is
/// denied is no refusal of any of them.
async fn calls(mut client: Client, keys: Vec<&'static str>, stop: Arc<AtomicBool>) -> [Trace; 3] {
    let mut traces: [Trace; 3] = Default::default();
    let pairs: Vec<[(&str, &str); 1]> = keys.iter().map(|key| [(*key, "v")]).collect();
    let asked: Vec<&[(&str, &str)]> = pairs.iter().map(|pair| &pair[..]).collect();
    while !stop.load(Ordering::Relaxed) {
        let sent = now();
        let answer = ask(&mut client, request("d", &asked)).await;
        let received = now();
        assert!(!is_degraded(&answer), "{answer:?}");
        for (trace, (key, _)) in traces.iter_mut().zip(LIMITS) {
            match answer.overall_code() {
                _ if !keys.contains(&key) => {}
                Code::Ok => trace.admit(sent, received, 1),
                _ if keys.len() == 1 => trace.refuse(sent, received, 1),
                _ => {}
            }
        }
        // Several times as often as the limits allow.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    traces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_exceed_no_limit() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let options = tollgate_on(&cluster, POLICIES).set("deny_cache.max_keys=0");
    // Time enough: every call is decided by Redis, so the promise holds exactly.
    let tollgate = options.set("store.deadline=5s").set("redis.response_timeout=10s").start();
    let client = tollgate.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let keys = LIMITS.map(|(key, _)| key);
    for asked in [&keys[..1], &keys[1..2], &keys[2..], &keys[..2], &keys[1..], &keys] {
        callers.spawn(calls(client.clone(), asked.to_vec(), Arc::clone(&stop)));
    }
    let slots = keys.map(|key| Key::new(format!("{{d|{key}=v}}").into_bytes()).slot());
    let moves = tokio::task::spawn_blocking(move || {
        for round in 0..30 {
            let slot = slots[round % 3];
            let from = cluster.owner(slot);
            cluster.move_slot(slot, from, (from + 1 + round % 2) % 3);
            // The limits are used meanwhile.
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster
    });
    let cluster = moves.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut all: [Trace; 3] = Default::default();
    for traces in callers.join_all().await {
        for (all, trace) in all.iter_mut().zip(&traces) {
            all.merge(trace);
        }
    }
    for (trace, (_, promise)) in all.iter().zip(LIMITS) {
        let finding = promise.parse::<Promise>().unwrap().finding(trace);
        assert!(finding.holds(), "{promise}: {finding:?}");
        assert!(finding.admitted > 100 && finding.refused > 50, "{promise}: {finding:?}");
    }
    assert_eq!(tollgate.errors(), Vec::<String>::new());
    drop(cluster);
}
