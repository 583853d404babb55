//! Slots that move under load: every request is decided, and no hit is lost or counted twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tollgate::domain::{Algorithm, Hits, Key};
use tollgate::store::StoreError;
use tollgate::store::redis::RedisStore;

use crate::asked::{
    claim, connected, decide, decide_within, hit, is_admitted, limit, readings, request,
};
use crate::support::cluster::{RedisCluster, tag_in};

const REQUESTS: u32 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_moves_back_and_forth_under_load() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let store = Arc::new(connected(&cluster.settings()).await);
    let (moving, resting) = (tag_in(0, "moving"), tag_in(1, "resting"));
    let (stop, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let (store, stop, admitted) =
            (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&admitted));
        let (moving, resting) = (moving.clone(), resting.clone());
        callers.spawn(async move {
            let keys = [&moving[..], &resting];
            let group = hit(if caller % 2 == 0 { &keys[..1] } else { &keys }, REQUESTS);
            while !stop.load(Ordering::Relaxed) {
                let answer = decide(&store, &group).await;
                assert!(is_admitted(&group, &answer));
                admitted.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let slot = Key::new(moving.as_bytes()).slot();
    let cluster = tokio::task::spawn_blocking(move || {
        for round in 0..20 {
            let (from, to) = if round % 2 == 0 { (0, 2) } else { (2, 0) };
            cluster.move_slot(slot, from, to);
            std::thread::sleep(Duration::from_millis(20));
        }
        cluster
    });
    let cluster = cluster.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let peek =
        request(vec![vec![claim(&moving, limit(REQUESTS, Algorithm::FixedWindow), Hits::Peek(1))]]);
    let left = readings(&decide(&store, &peek).await)[0].remaining;
    let admitted = admitted.load(Ordering::Relaxed);
    assert_eq!(u64::from(REQUESTS) - left, admitted as u64);
    assert!(admitted > 200, "{admitted} requests");
    drop(cluster);
}

/// Another store, so one with a map of its own, which it has not changed.
async fn asks(store: &RedisStore, key: &str, expected: u64) {
    let group = hit(&[key], 100);
    assert_eq!(readings(&decide(store, &group).await)[0].remaining, expected);
}

#[tokio::test]
async fn keys_of_a_slot_that_is_moving_are_found() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let store = connected(&cluster.settings()).await;
    let tag = tag_in(0, "t");
    let slot = Key::new(tag.as_bytes()).slot();
    let (first, second) = (format!("{tag}1"), format!("{tag}2"));
    asks(&store, &first, 99).await;
    cluster.begin_move(slot, 0, 1);
    // One that is there, and one that is not: ASK.
    asks(&store, &first, 98).await;
    asks(&store, &second, 99).await;
    asks(&store, &second, 98).await;
    assert_eq!(cluster.keys_in(1, slot), [&second[..]]);
    // The script is not known at the target after this, and the flag of ASKING is for one command.
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut cluster.nodes[1].connection()).unwrap();
    asks(&store, &second, 97).await;
    keys_at_two_nodes_are_not_decided(&store, &first, &second).await;
    cluster.move_keys(std::slice::from_ref(&first), 0, 1);
    let both = both(&first, &second);
    let answer = decide(&store, &both).await;
    let left: Vec<u64> = readings(&answer).iter().map(|reading| reading.remaining).collect();
    assert_eq!(left, [97, 96], "together again, at the target");
    cluster.end_move(slot, 0, 1);
    asks(&store, &first, 96).await;
    assert_eq!(cluster.owner(slot), 1);
}

fn both(first: &str, second: &str) -> tollgate::domain::Group {
    let limit = limit(100, Algorithm::FixedWindow);
    request(vec![[first, second].map(|key| claim(key, limit, Hits::Take(1))).to_vec()])
}

/// TRYAGAIN: once more after a moment, and then the failure mode decides.
async fn keys_at_two_nodes_are_not_decided(store: &RedisStore, first: &str, second: &str) {
    let group = both(first, second);
    let begun = std::time::Instant::now();
    let answer = decide_within(store, &group, Duration::from_secs(5)).await;
    assert!(matches!(answer.failure, Some(StoreError::Unavailable(_))), "{answer:?}");
    assert!(answer.late.is_empty() && *answer.readings == [None, None]);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
