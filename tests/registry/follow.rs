//! Followers of the Redis registry: two at once, notices lost, data lost or turned back, changes out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tollgate::control::follower::DEFAULT_POLL;
use tollgate::control::registry::redis::RedisRegistry;
use tollgate::control::registry::{
    Change, Delta, Mark, Record, Registry, RegistryError, Update, Written,
};
use tollgate::domain::Timestamp;

use super::map::{REGISTRY_KEYS, SOON, delete, follow, key, put, redis_registry, scanned, until};
use super::redis_server::RedisServer;

/// So far apart that only a notice explains what comes sooner.
pub const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn notices_bring_changes_to_every_follower_without_polling() {
    let Some(server) = RedisServer::start() else { return };
    let writer = redis_registry(&server, 100);
    let [one, two] = [0, 1].map(|_| follow(&redis_registry(&server, 100), NEVER));
    let mut notified = 0;
    for round in 1..=20 {
        // A follower that was not yet subscribed may miss the first ones.
        let written = writer.write(vec![put("a", round.to_string())]).await.unwrap();
        let both =
            || [&one, &two].iter().all(|f| f.follower.progress().revision >= written.mark.revision);
        let took = until("both have it", SOON, both).await;
        notified += u32::from(took < Duration::from_millis(500));
        assert_eq!(one.map.get(b"a"), two.map.get(b"a"));
    }
    assert!(notified >= 18, "{notified}");
}

#[tokio::test]
async fn changes_arrive_while_subscriptions_are_killed_all_the_time() {
    let Some(server) = RedisServer::start() else { return };
    let writer = redis_registry(&server, 100);
    let following = follow(&redis_registry(&server, 100), DEFAULT_POLL);
    following.follower.synced().await;
    let stop = Arc::new(AtomicBool::new(false));
    let killer = {
        let (stop, mut connection) = (Arc::clone(&stop), server.connection());
        std::thread::spawn(move || {
            let mut killed = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let mut kill = redis::cmd("CLIENT");
                kill.arg("KILL").arg("TYPE").arg("pubsub");
                killed += kill.query::<u32>(&mut connection).unwrap();
            }
            killed
        })
    };
    for round in 1..=6_u64 {
        let written = writer.write(vec![put("a", round.to_string())]).await.unwrap();
        let there = || following.follower.progress().revision >= written.mark.revision;
        let took = until("the change", SOON, there).await;
        println!("followed in {took:?} while subscriptions are killed");
        tokio::time::sleep(Duration::from_millis(round * 37)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(killer.join().unwrap() > 3);
}

#[tokio::test]
async fn lost_data_empties_followers_and_they_go_on() {
    let Some(server) = RedisServer::start() else { return };
    let writer = redis_registry(&server, 100);
    let following = follow(&redis_registry(&server, 100), Duration::from_millis(50));
    writer.write(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    until("both records", SOON, || following.map.len() == 2).await;
    redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
    until("no record", SOON, || following.map.len() == 0).await;
    let written = writer.write(vec![put("c", "2")]).await.unwrap();
    assert_eq!(written.mark.revision, 1);
    until("the new record", SOON, || following.map.get(b"c").is_some()).await;
    assert_eq!(following.map.records(), scanned(&*writer).await.0);
}

#[tokio::test]
async fn lost_data_is_noticed_when_the_revision_has_been_made_again() {
    let Some(server) = RedisServer::start() else { return };
    let (writer, reader) = (redis_registry(&server, 100), redis_registry(&server, 100));
    for round in 0..5 {
        writer.write(vec![put("a", round.to_string())]).await.unwrap();
    }
    let lost = reader.newest().await.unwrap();
    assert_eq!(lost.revision, 5);
    redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
    for round in 0..8 {
        writer.write(vec![put("b", round.to_string())]).await.unwrap();
    }
    assert_eq!(reader.since(lost).await.unwrap(), Delta::TooOld);
    let mark = reader.newest().await.unwrap();
    assert_eq!(mark.revision, 8);
    assert_eq!(reader.since(mark).await.unwrap(), Delta::Changes { mark, entries: vec![] });
}

#[tokio::test]
async fn restored_older_state_replaces_what_followers_have() {
    let Some(server) = RedisServer::start() else { return };
    let writer = redis_registry(&server, 100);
    let following = follow(&redis_registry(&server, 100), Duration::from_millis(50));
    writer.write(vec![put("a", "old")]).await.unwrap();
    let saved = server.dump(&REGISTRY_KEYS);
    writer.write(vec![put("a", "new"), put("b", "new")]).await.unwrap();
    until("the newer state", SOON, || following.map.len() == 2).await;
    server.restore(&saved);
    let old = Record { value: key("old"), revision: 1 };
    until("the older state", SOON, || following.map.get(b"a") == Some(old.clone())).await;
    until("what is gone", SOON, || following.map.get(b"b").is_none()).await;
}

#[tokio::test]
async fn unreadable_records_are_left_out_and_can_be_replaced() {
    let Some(server) = RedisServer::start() else { return };
    let registry = redis_registry(&server, 100);
    let mut connection = server.connection();
    let mut set = redis::cmd("HSET");
    set.arg("test:{registry}:records").arg("bad").arg("\u{2}of a later format");
    set.exec(&mut connection).unwrap();
    registry.write(vec![put("good", "1")]).await.unwrap();
    assert!(matches!(registry.read(b"bad").await, Err(RegistryError::Corrupt(_))));
    assert_eq!(scanned(&*registry).await.0.len(), 1);
    assert_eq!(registry.write(vec![put("bad", "2")]).await.unwrap().before, vec![None]);
    assert_eq!(scanned(&*registry).await.0.len(), 2);
    // Keys of another type: refused before anything is written.
    redis::cmd("DEL").arg("test:{registry}:log").exec(&mut connection).unwrap();
    redis::cmd("SET").arg("test:{registry}:log").arg("x").exec(&mut connection).unwrap();
    let refused = registry.write(vec![put("good", "2")]).await;
    assert!(matches!(refused, Err(RegistryError::Corrupt(_))), "{refused:?}");
    let good = registry.read(b"good").await.unwrap().unwrap();
    assert_eq!((good.value, good.revision), (key("1"), 1));
}

/// The registry in Redis, with room for more to happen between its answers and their arrival.
pub struct Held {
    inner: Arc<RedisRegistry>,
    /// Written during the next scan, between the newest mark and the records.
    pub meanwhile: Mutex<Vec<Vec<Change>>>,
    /// Done at the end of the next scan.
    pub afterwards: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// The next answer of the log, once known, says so and waits.
    pub hold: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
}

impl Held {
    pub fn new(inner: Arc<RedisRegistry>) -> Self {
        Self {
            inner,
            meanwhile: Mutex::default(),
            afterwards: Mutex::default(),
            hold: Mutex::default(),
        }
    }
}

impl Registry for Held {
    async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        self.inner.write(changes).await
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Record>, RegistryError> {
        self.inner.read(key).await
    }

    async fn newest(&self) -> Result<Mark, RegistryError> {
        self.inner.newest().await
    }

    async fn since(&self, mark: Mark) -> Result<Delta, RegistryError> {
        let delta = self.inner.since(mark).await;
        let hold = self.hold.lock().take();
        if let Some((known, go)) = hold {
            known.send(()).unwrap();
            go.await.unwrap();
        }
        delta
    }

    async fn scan(&self, tell: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        let writes = std::mem::take(&mut *self.meanwhile.lock());
        for write in writes {
            self.inner.write(write).await?;
        }
        self.inner.scan(tell).await?;
        if let Some(afterwards) = self.afterwards.lock().take() {
            afterwards();
        }
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, RegistryError> {
        self.inner.now().await
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        self.inner.probe().await
    }

    async fn news(&self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn old_changes_neither_replace_nor_resurrect_what_a_scan_found() {
    let Some(server) = RedisServer::start() else { return };
    let inner = redis_registry(&server, 100);
    inner.write(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    let meanwhile = vec![
        vec![put("a", "2")],
        vec![delete("a")],
        vec![put("a", "4")],
        vec![put("b", "5")],
        vec![delete("b")],
    ];
    let held = Held::new(inner);
    *held.meanwhile.lock() = meanwhile;
    let following = follow(&Arc::new(held), NEVER);
    assert!(following.follower.caught_up(6, SOON).await);
    // The scan found the newest; the log's older put and delete of it were never told.
    assert_eq!(following.map.told(b"a"), ["4", "4"]);
    assert_eq!(following.map.len(), 1);
}

#[tokio::test]
async fn late_answer_of_the_log_does_not_undo_an_own_newer_write() {
    let Some(server) = RedisServer::start() else { return };
    let inner = redis_registry(&server, 100);
    inner.write(vec![put("a", "1")]).await.unwrap();
    let held = Arc::new(Held::new(inner));
    let following = follow(&held, NEVER);
    let follower = &following.follower;
    follower.synced().await;
    let (known, is_known) = oneshot::channel();
    let (go, wait) = oneshot::channel();
    *held.hold.lock() = Some((known, wait));
    let own = vec![put("a", "2")];
    let first = held.write(own.clone()).await.unwrap();
    assert!(!follower.caught_up(first.mark.revision, Duration::from_millis(1)).await);
    // The answer under way has this write and not the next, which its writer applies before it arrives.
    is_known.await.unwrap();
    let gone = vec![delete("a")];
    let second = held.write(gone.clone()).await.unwrap();
    assert!(follower.applied(&first, &own, SOON).await);
    assert!(follower.applied(&second, &gone, SOON).await);
    go.send(()).unwrap();
    // Told again, late: nothing comes back.
    assert!(follower.applied(&first, &own, SOON).await);
    assert_eq!(following.map.get(b"a"), None);
    // Behind another writer's change: that comes first.
    held.write(vec![put("other", "4")]).await.unwrap();
    let third = held.write(own.clone()).await.unwrap();
    assert!(follower.applied(&third, &own, SOON).await);
    assert_eq!(following.map.records(), scanned(&*held).await.0);
    assert_eq!(following.map.told(b"a"), ["1", "2", "-", "2"]);
}
