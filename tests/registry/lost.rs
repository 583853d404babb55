//! A registry in Redis that lost its newest writes and makes their revisions again: followers must
//! not take the new writes for those that they know.

use std::sync::Arc;

use tokio::sync::oneshot;
use tollgate::control::registry::{Change, Registry};

use super::follow::{Held, NEVER};
use super::map::{
    Following, REGISTRY_KEYS, Records, SOON, delete, follow, put, redis_registry, scanned, until,
};
use super::redis_server::RedisServer;

/// A process: a registry of its own and its follower.
struct Replica<R> {
    registry: Arc<R>,
    following: Following<R>,
}

impl<R: Registry> Replica<R> {
    async fn start(registry: Arc<R>) -> Self {
        let following = follow(&registry, NEVER);
        following.follower.synced().await;
        Self { registry, following }
    }

    /// Returns when the write is acknowledged.
    async fn write(&self, changes: Vec<Change>) {
        let written = self.registry.write(changes.clone()).await.unwrap();
        assert!(self.following.follower.applied(&written, &changes, SOON).await);
    }

    fn records(&self) -> Records {
        self.following.map.records()
    }

    async fn until_it_has(&self, expected: &Records) {
        until("the registry's records", SOON, || self.records() == *expected).await;
    }
}

#[tokio::test]
async fn writes_after_lost_ones_are_in_force_on_every_replica() {
    let Some(server) = RedisServer::start() else { return };
    // How many writes are lost, and who writes afterwards: 0 and 1 had followed the lost ones, 2
    // follows nothing.
    let cases: [(usize, &[usize]); 10] = [
        (1, &[0]),
        (1, &[1]),
        (1, &[2]),
        (1, &[0, 0]),
        (1, &[0, 1]),
        (1, &[2, 0]),
        (1, &[2, 2, 0]),
        (2, &[0]),
        (2, &[2, 0]),
        (3, &[0, 1, 0, 0]),
    ];
    let writer = redis_registry(&server, 100);
    let replicas = [0, 1].map(|_| redis_registry(&server, 100));
    let [here, there] = replicas.map(Replica::start);
    let (here, there) = (here.await, there.await);
    for (case, (lost, writers)) in cases.into_iter().enumerate() {
        let context = format!("{lost} lost, then {writers:?}");
        here.write(vec![put("kept", case.to_string()), put("gone", "")]).await;
        let saved = server.dump(&REGISTRY_KEYS);
        for i in 0..lost {
            here.write(vec![put(format!("lost{i}"), ""), put("kept", "lost"), delete("gone")])
                .await;
        }
        there.until_it_has(&scanned(&*writer).await.0).await;
        server.restore(&saved);
        for (i, by) in writers.iter().enumerate() {
            let changes = vec![put(format!("new{i}"), case.to_string())];
            match by {
                0 => here.write(changes.clone()).await,
                1 => there.write(changes.clone()).await,
                _ => drop(writer.write(changes.clone()).await.unwrap()),
            }
            let expected = scanned(&*writer).await.0;
            assert!(!expected.contains_key(&b"lost0"[..]), "{context}");
            // In force at once where it was written.
            match by {
                0 => assert_eq!(here.records(), expected, "{context}"),
                1 => assert_eq!(there.records(), expected, "{context}"),
                _ => {}
            }
        }
        let expected = scanned(&*writer).await.0;
        here.until_it_has(&expected).await;
        there.until_it_has(&expected).await;
    }
}

#[tokio::test]
async fn answer_under_way_from_before_the_loss_does_not_acknowledge_a_write() {
    let Some(server) = RedisServer::start() else { return };
    let replica = Replica::start(Arc::new(Held::new(redis_registry(&server, 100)))).await;
    replica.write(vec![put("kept", "")]).await;
    let saved = server.dump(&REGISTRY_KEYS);
    replica.write(vec![put("lost", "")]).await;
    let (known, is_known) = oneshot::channel();
    let (go, wait) = oneshot::channel();
    *replica.registry.hold.lock() = Some((known, wait));
    // The answer is that nothing is newer than the write that is lost by the time it arrives.
    let looked = replica.following.follower.caught_up(2, SOON);
    let turned_back = async {
        is_known.await.unwrap();
        server.restore(&saved);
        let changes = vec![put("new", "")];
        let written = replica.registry.write(changes.clone()).await.unwrap();
        assert_eq!(written.mark.revision, 2);
        let applied = replica.following.follower.applied(&written, &changes, SOON);
        let (applied, ()) = tokio::join!(applied, async { go.send(()).unwrap() });
        assert!(applied);
        assert_eq!(replica.records(), scanned(&*replica.registry).await.0);
    };
    tokio::join!(looked, turned_back);
}

#[tokio::test]
async fn writes_that_are_lost_during_a_scan_do_not_stay() {
    let Some(server) = RedisServer::start() else { return };
    let server = Arc::new(server);
    let inner = redis_registry(&server, 100);
    for next in [None, Some(put("new", "")), Some(put("lost", "again")), Some(delete("lost"))] {
        inner.write(vec![put("kept", ""), put("gone", "")]).await.unwrap();
        let held = Arc::new(Held::new(Arc::clone(&inner)));
        *held.meanwhile.lock() = vec![vec![put("lost", ""), delete("gone")]];
        let (saved, restored) = (server.dump(&REGISTRY_KEYS), Arc::clone(&server));
        *held.afterwards.lock() = Some(Box::new(move || restored.restore(&saved)));
        let following = follow(&held, NEVER);
        let scanned_at = following.follower.synced().await.revision;
        if let Some(change) = next {
            inner.write(vec![change]).await.unwrap();
        }
        assert!(following.follower.caught_up(scanned_at, SOON).await);
        assert_eq!(following.map.records(), scanned(&*inner).await.0);
    }
}

#[tokio::test]
async fn write_that_follows_another_history_brings_all_of_it() {
    let Some(server) = RedisServer::start() else { return };
    let inner = redis_registry(&server, 100);
    // Without notices: only the write itself says that the history is another.
    let replica = Replica::start(Arc::new(Held::new(Arc::clone(&inner)))).await;
    replica.write(vec![put("kept", "")]).await;
    let saved = server.dump(&REGISTRY_KEYS);
    replica.write(vec![put("lost", "")]).await;
    server.restore(&saved);
    inner.write(vec![put("theirs", "")]).await.unwrap();
    replica.write(vec![put("new", "")]).await;
    assert_eq!(replica.following.follower.progress().revision, 3);
    assert_eq!(replica.records(), scanned(&*inner).await.0);
}

#[tokio::test]
async fn log_that_was_deleted_is_followed_anew() {
    let Some(server) = RedisServer::start() else { return };
    let replica = Replica::start(redis_registry(&server, 100)).await;
    for round in 0..5 {
        replica.write(vec![put("a", round.to_string()), put("b", round.to_string())]).await;
    }
    replica.write(vec![put("kept", "")]).await;
    redis::cmd("DEL").arg(REGISTRY_KEYS[1]).exec(&mut server.connection()).unwrap();
    let mut told = Vec::new();
    for changes in [vec![put("c", "")], vec![put("a", "new")], vec![delete("b")]] {
        replica.write(changes).await;
        assert_eq!(replica.records(), scanned(&*replica.registry).await.0);
        assert!(replica.following.follower.caught_up(1, SOON).await);
        told.push(replica.following.map.told(b"kept").len());
    }
    // Records of revisions that the new log has yet to make are no reason to read everything for
    // every change.
    assert_eq!(told[1..], [told[0]; 2]);
}

#[tokio::test]
async fn writes_go_on_when_the_log_is_trimmed_to_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let registries = [0, 1].map(|_| redis_registry(&server, 100));
    let [here, there] = registries.map(Replica::start);
    let (here, there) = (here.await, there.await);
    for revision in 1..=3 {
        here.write(vec![put("kept", ""), put("other", revision.to_string())]).await;
    }
    for (revision, by) in [(4, &here), (6, &there)] {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(REGISTRY_KEYS[1]).arg("MAXLEN").arg(0).exec(&mut server.connection()).unwrap();
        by.write(vec![put("kept", revision.to_string()), put(format!("new{revision}"), "")]).await;
        let (records, newest) = scanned(&*here.registry).await;
        assert_eq!((newest, records[&b"kept"[..]].revision), (revision, revision));
        here.until_it_has(&records).await;
        there.until_it_has(&records).await;
        // The log goes on from there.
        here.write(vec![put("after", revision.to_string())]).await;
    }
}
