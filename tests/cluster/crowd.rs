//! Many callers at a limit that is used up, beside one that is not: the free one admits exactly
//! what it has, and nobody who asks for it alone is refused before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::failed::{tollgate_on, value_in};
use crate::support::cluster::RedisCluster;
use crate::support::grpc::{ask, is_degraded};
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
