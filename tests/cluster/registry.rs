//! The registry and the count of the replicas in a cluster: one slot, which follows its primary.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate::control::registry::redis::RedisRegistry;
use tollgate::control::registry::{Change, Expect, Registry, RegistryError};
use tollgate::domain::Key;

use crate::support::cluster::RedisCluster;
use crate::support::wait;

fn put(key: &str, value: &str) -> Vec<Change> {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    vec![Change { key: Bytes::copy_from_slice(key.as_bytes()), expect: Expect::Anything, value }]
}

async fn value(registry: &RedisRegistry, key: &str) -> Option<Bytes> {
    registry.read(key.as_bytes()).await.ok().flatten().map(|record| record.value)
}

/// Writes until it is acknowledged.
async fn write(registry: &RedisRegistry, key: &str, value: &str) {
    wait::until("a write", async || match registry.write(put(key, value)).await {
        Ok(_) => Some(()),
        Err(RegistryError::Unavailable(_) | RegistryError::Unknown(_)) => None,
        Err(other) => panic!("{other}"),
    })
    .await;
}

async fn is_told(registry: &RedisRegistry, other: &RedisRegistry, value: &str) {
    wait::until("a notice", async || {
        let news = registry.news();
        write(other, "told", value).await;
        tokio::time::timeout(Duration::from_secs(1), news).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_follows_its_slot_and_its_primary() {
    let Some(mut cluster) = RedisCluster::start(3) else { return };
    let settings = cluster.settings();
    let one = Arc::new(RedisRegistry::connect(&settings).unwrap());
    let two = RedisRegistry::connect(&settings).unwrap();
    write(&one, "a", "1").await;
    assert_eq!(value(&two, "a").await, Some(Bytes::from_static(b"1")));
    assert_eq!(one.beat(1).await.unwrap(), [1]);
    assert_eq!(two.beat(2).await.unwrap().len(), 2);
    is_told(&one, &two, "1").await;

    // The slot moves: both follow it, and no command fails.
    let slot = Key::new(&b"tollgate:{registry}:records"[..]).slot();
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    cluster.move_slot(slot, from, to);
    one.write(put("a", "2")).await.unwrap();
    assert_eq!(value(&two, "a").await, Some(Bytes::from_static(b"2")));
    is_told(&two, &one, "2").await;

    // Its primary is gone: the replica goes on with what it has.
    cluster.nodes[to].stop();
    let promoted = to + 3;
    tokio::task::block_in_place(|| cluster.wait_until_primary(promoted));
    write(&two, "a", "3").await;
    wait::until("the same at the other", async || {
        (value(&one, "a").await == Some(Bytes::from_static(b"3"))).then_some(())
    })
    .await;
    is_told(&one, &two, "3").await;
    assert!(one.beat(1).await.unwrap().contains(&1));
}

/// A command that comes while the keys are at two nodes waits until the slot has moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_wait_while_the_slot_of_the_registry_moves() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let registry = RedisRegistry::connect(&cluster.settings()).unwrap();
    write(&registry, "a", "1").await;
    let slot = Key::new(&b"tollgate:{registry}:records"[..]).slot();
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to);
    let keys = cluster.keys_in(from, slot);
    let (first, rest) = keys.split_at(1);
    cluster.move_keys(first, from, to);
    // One of its two keys is there, then both are, then the slot is.
    let end = tokio::task::spawn_blocking({
        let rest = rest.to_vec();
        move || {
            std::thread::sleep(Duration::from_millis(50));
            cluster.move_keys(&rest, from, to);
            std::thread::sleep(Duration::from_millis(50));
            cluster.end_move(slot, from, to);
            cluster
        }
    });
    registry.write(put("a", "2")).await.unwrap();
    assert_eq!(value(&registry, "a").await, Some(Bytes::from_static(b"2")));
    drop(end.await.unwrap());
}
