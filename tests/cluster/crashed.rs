//! Callers and tollgates that go away in the middle of a request over several slots.

use std::time::Duration;

use tollgate::domain::{Algorithm, Charge, Hits, Limit};
use tollgate::redis::RedisSettings;
use tollgate::store::redis::RedisStore;

use crate::asked::{claim, connected, decide, hit, limit, readings, request};
use crate::failed::{tollgate_on, value_in};
use crate::support::cluster::{RedisCluster, tag_in};
use crate::support::tollgate::request as asking;
use crate::support::wait;

const LIMIT: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);
/// The other nodes serve while one is frozen.
const PARTIAL: [&str; 2] = ["--cluster-require-full-coverage", "no"];

async fn left(store: &RedisStore, key: &str) -> u64 {
    let limit = limit(LIMIT, Algorithm::FixedWindow);
    let group = request(vec![vec![claim(key, limit, Hits::Peek(1))]]);
    readings(&decide(store, &group).await)[0].remaining
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_that_goes_away_is_charged_nothing() {
    let Some(cluster) = RedisCluster::start_with(0, &PARTIAL) else { return };
    let settings = RedisSettings { response_timeout: PATIENCE, ..cluster.settings() };
    let store = connected(&settings).await;
    let keys = [tag_in(0, "gone"), tag_in(1, "gone")];
    let group = hit(&[&keys[0], &keys[1]], LIMIT);
    readings(&decide(&store, &group).await);
    cluster.nodes[1].pause();
    let (asked, asked_for) = (store.clone(), group.clone());
    let call = tokio::spawn(async move { decide(&asked, &asked_for).await });
    wait::until("charged at one node", async || (left(&store, &keys[0]).await == 3).then_some(()))
        .await;
    call.abort();
    assert!(call.await.is_err());
    cluster.nodes[1].resume();
    for key in &keys {
        wait::until("given back", async || (left(&store, key).await == 4).then_some(())).await;
    }
}

const POLICIES: &str = "
domain: d
descriptors:
  - key: k
    rate_limit: {unit: year, requests_per_unit: 5, algorithm: fixed_window}
";

/// Nothing can give back what a process that is gone has charged, but it is one request's hits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_tollgate_leaves_the_hits_of_one_request() {
    let Some(cluster) = RedisCluster::start_with(0, &PARTIAL) else { return };
    let tollgate = tollgate_on(&cluster, POLICIES)
        .set("store.deadline=20s")
        .set("redis.response_timeout=20s")
        .start();
    let values = [value_in(0), value_in(1)];
    let group = asking("d", &[&[("k", &values[0])], &[("k", &values[1])]]);
    let mut client = tollgate.client().await;
    client.should_rate_limit(group.clone()).await.unwrap();
    let key = |value: &String| format!("tollgate:1:{{d|k={value}}}:fixed_window:31536000s");
    let before = cluster.get(&key(&values[0])).expect("a counter");
    cluster.nodes[1].pause();
    let call = tokio::spawn(async move { client.should_rate_limit(group).await });
    wait::until("charged at one node", async || {
        (cluster.get(&key(&values[0])).as_ref() != Some(&before)).then_some(())
    })
    .await;
    tollgate.signal("KILL");
    assert!(call.await.unwrap().is_err());
    cluster.nodes[1].resume();
    // A node has run what arrived before this store has connected to it.
    let store = connected(&cluster.settings()).await;
    let year = Duration::from_hours(365 * 24);
    let limit = Limit::new(LIMIT, year, Algorithm::FixedWindow, Charge::Admitted).unwrap();
    for value in &values {
        let claim = claim(&key(value), limit, Hits::Peek(1));
        let left = readings(&decide(&store, &request(vec![vec![claim]])).await)[0].remaining;
        assert!((3..=4).contains(&left), "{left} of 5 left");
    }
}
