//! Many callers at a limit that is used up, beside one that is not: the free one admits exactly
//! what it has, nobody who asks for it alone is refused before, and refusals of a bucket are never
//! needless.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tollgate::domain::Timestamp;
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::verify::{Promise, Trace};

use crate::asked::now;
use crate::failed::{tollgate_on, value_in};
use crate::support::cluster::RedisCluster;
use crate::support::grpc::{Client, ask, is_degraded};
use crate::support::tollgate::request;

const FREE: usize = 3_000;
const CALLERS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_limit_takes_nothing_from_a_free_one() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let (full, free) = (value_in(0), value_in(1));
    let policies = format!(
        "
domain: d
descriptors:
  - key: k
    value: {full}
    rate_limit: {{unit: year, requests_per_unit: 1, algorithm: fixed_window}}
  - key: k
    value: {free}
    rate_limit: {{unit: year, requests_per_unit: {FREE}, algorithm: fixed_window}}
"
    );
    // Time enough: this is about what is decided, not how fast.
    let tollgate = tollgate_on(&cluster, &policies).set("store.deadline=5s").start();
    let both = request("d", &[&[("k", &full)], &[("k", &free)]]);
    let alone = request("d", &[&[("k", &free)]]);
    let mut client = tollgate.client().await;
    assert_eq!(ask(&mut client, both.clone()).await.overall_code(), Code::Ok);
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut client, both, stop) = (client.clone(), both.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(&mut client, both.clone()).await;
                assert_eq!(answer.overall_code(), Code::OverLimit);
                assert!(!is_degraded(&answer));
                asked += 1;
            }
            asked
        });
    }
    for i in 1..FREE {
        let answer = ask(&mut client, alone.clone()).await;
        assert_eq!(answer.overall_code(), Code::Ok, "the {i}-th");
    }
    assert_eq!(ask(&mut client, alone).await.overall_code(), Code::OverLimit);
    stop.store(true, Ordering::Relaxed);
    let asked: usize = callers.join_all().await.into_iter().sum();
    assert!(asked > FREE, "{asked} requests that were denied");
    assert_eq!(tollgate.errors(), Vec::<String>::new());
}

const BUCKET: &str = "token_bucket 200/s burst 20";
const THINK: Duration = Duration::from_millis(2);
/// Two thirds of the rate of the bucket.
const GAP: Duration = Duration::from_micros(7_500);

/// The callers of the bucket alone stay below its rate, so it has always room for them, unless it
/// is charged for requests that the other limit denies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_limit_refuses_nothing_at_a_free_bucket() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let (full, free) = (value_in(0), value_in(1));
    let policies = format!(
        "
domain: d
descriptors:
  - key: k
    value: {full}
    rate_limit: {{unit: second, requests_per_unit: 1, algorithm: sliding_window}}
  - key: k
    value: {free}
    rate_limit: {{unit: second, requests_per_unit: 200, algorithm: token_bucket, burst: 20}}
"
    );
    let tollgate = tollgate_on(&cluster, &policies).set("store.deadline=5s").start();
    let both = request("d", &[&[("k", &full)], &[("k", &free)]]);
    let alone = request("d", &[&[("k", &free)]]);
    let mut client = tollgate.client().await;
    // The first denial makes the limit known as used up.
    while call(&mut client, &both).await.admitted {}
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut client, both, stop) = (client.clone(), both.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                seen.push(call(&mut client, &both).await);
                tokio::time::sleep(THINK).await;
            }
            seen
        });
    }
    let mut singles = JoinSet::new();
    let mut ticks = tokio::time::interval(GAP);
    for _ in 0..600 {
        ticks.tick().await;
        let (mut client, alone) = (client.clone(), alone.clone());
        singles.spawn(async move { call(&mut client, &alone).await });
    }
    let singles = singles.join_all().await;
    stop.store(true, Ordering::Relaxed);
    let (mut trace, mut denied) = (Trace::default(), 0);
    for Call { sent, received, admitted } in singles {
        if admitted { trace.admit(sent, received, 1) } else { trace.refuse(sent, received, 1) }
    }
    for Call { sent, received, admitted } in callers.join_all().await.into_iter().flatten() {
        // The refusals are those of the other limit.
        if admitted { trace.admit(sent, received, 1) } else { denied += 1 }
    }
    let finding = BUCKET.parse::<Promise>().unwrap().finding(&trace);
    assert!(finding.holds() && finding.needless == Some(0), "{finding:?}");
    assert!(denied > 1_000, "{denied} denied");
    assert_eq!(tollgate.errors(), Vec::<String>::new());
}

/// A call as its caller saw it.
struct Call {
    sent: Timestamp,
    received: Timestamp,
    admitted: bool,
}

async fn call(client: &mut Client, request: &RateLimitRequest) -> Call {
    let sent = now();
    let answer = ask(client, request.clone()).await;
    assert!(!is_degraded(&answer), "{answer:?}");
    Call { sent, received: now(), admitted: answer.overall_code() == Code::Ok }
}
