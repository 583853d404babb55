//! The same run on each way to have a Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Mutex, MutexGuard};
use tollgate::domain::Key;

use crate::run::run;
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{MASTER, SentinelSet};
use crate::support::tollgate::Options;
use crate::watched::Watched;

/// The longest pause between two moves of a slot.
const MAX_PAUSE: Duration = Duration::from_millis(150);
const PRIMARIES: usize = 3;
/// The tag of the keys that hold clients and policies.
const REGISTRY: &[u8] = b"{registry}";
const MIN_MOVES: usize = 30;

/// Each test has the machine to itself: it measures what the replicas admit in time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

fn nothing(_: Instant, _: Rng) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_on_one_server_exceed_nothing() {
    let _alone = alone().await;
    let Some(redis) = RedisServer::start() else { return };
    run(Options::default().redis(redis.url()), nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_behind_sentinels_exceed_nothing() {
    let _alone = alone().await;
    let Some(set) = SentinelSet::start() else { return };
    let options = Options::default()
        .set("redis.topology=sentinel")
        .set(format!("redis.nodes={}", set.nodes()))
        .set(format!("redis.sentinel.master={MASTER}"));
    run(options, nothing).await;
    let port = Some(set.servers[0].port());
    assert!((0..3).all(|i| set.named(i) == port), "the primary has moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_on_a_cluster_whose_slots_move_exceed_nothing() {
    let _alone = alone().await;
    let Some(cluster) = RedisCluster::start(PRIMARIES) else { return };
    let options = Options::default()
        .set("redis.topology=cluster")
        .set(format!("redis.nodes={}", cluster.addresses()));
    let cluster = Arc::new(cluster);
    let moving = Arc::clone(&cluster);
    let moves = run(options, move |end, random| move_slots_until(end, &moving, random)).await;
    println!("{moves} slots moved");
    assert!(moves >= MIN_MOVES, "{moves} slots moved");
}

/// Moves the slots of watched counters, and that of the registry, to other primaries. Returns how
/// many. Blocks.
fn move_slots_until(end: Instant, cluster: &RedisCluster, mut random: Rng) -> usize {
    let mut slots: Vec<u16> = Watched::all().into_iter().map(Watched::slot).collect();
    slots.push(Key::new(REGISTRY).slot());
    let mut moves = 0;
    while Instant::now() < end {
        let slot = slots[random.usize(..slots.len())];
        let from = cluster.primary_of(slot).unwrap();
        cluster.move_slot(slot, from, (from + random.usize(1..PRIMARIES)) % PRIMARIES);
        moves += 1;
        std::thread::sleep(MAX_PAUSE.mul_f64(random.f64()));
    }
    moves
}
