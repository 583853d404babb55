//! Records as a plain map, and short ways to write them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tollgate::control::follower::{Follower, Mirror};
use tollgate::control::registry::redis::RedisRegistry;
use tollgate::control::registry::{Change, Expect, Record, Registry, Update};
use tollgate::redis::RedisSettings;

use super::redis_server::RedisServer;

/// Within this a follower must be up to date: the poll of a second, and what a busy machine adds.
pub const SOON: Duration = Duration::from_secs(3);

/// The keys of a [`redis_registry`].
pub const REGISTRY_KEYS: [&str; 2] = ["test:{registry}:records", "test:{registry}:log"];

pub type Records = HashMap<Bytes, Record>;

/// A mirror that keeps what it is told, and every telling.
#[derive(Debug, Default)]
pub struct Map {
    records: Mutex<Records>,
    told: Mutex<Vec<Update>>,
}

impl Map {
    pub fn records(&self) -> Records {
        self.records.lock().clone()
    }

    pub fn len(&self) -> usize {
        self.records.lock().len()
    }

    pub fn get(&self, key: &[u8]) -> Option<Record> {
        self.records.lock().get(key).cloned()
    }

    /// The values of one record in the order they were told; `-` when it was taken out.
    pub fn told(&self, key: &[u8]) -> Vec<String> {
        let told = self.told.lock();
        let of_key = told.iter().filter(|entry| entry.0 == key);
        let shown = |record: &Record| String::from_utf8_lossy(&record.value).into_owned();
        of_key.map(|entry| entry.1.as_ref().map_or("-".to_owned(), shown)).collect()
    }
}

impl Mirror for Map {
    fn apply(&self, entries: Vec<Update>) {
        self.told.lock().extend_from_slice(&entries);
        let mut records = self.records.lock();
        for (key, record) in entries {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
    }

    fn retain(&self, keep: &dyn Fn(&[u8]) -> bool) {
        self.records.lock().retain(|key, _| keep(key));
    }
}

/// A follower at work, and its mirror.
pub struct Following<R> {
    pub follower: Arc<Follower<R, Map>>,
    pub map: Arc<Map>,
    task: tokio::task::JoinHandle<()>,
}

impl<R> Drop for Following<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn follow<R: Registry>(registry: &Arc<R>, poll: Duration) -> Following<R> {
    let map = Arc::new(Map::default());
    let follower = Arc::new(Follower::new(Arc::clone(registry), Arc::clone(&map), poll));
    let running = Arc::clone(&follower);
    let task = tokio::spawn(async move { running.run().await });
    Following { follower, map, task }
}

pub fn key(name: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(name.as_ref())
}

pub fn put(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Change {
    Change { key: key(name), expect: Expect::Anything, value: Some(key(value)) }
}

pub fn delete(name: impl AsRef<[u8]>) -> Change {
    Change { key: key(name), expect: Expect::Anything, value: None }
}

/// What a scan tells, and the revision before it.
pub async fn scanned(registry: &impl Registry) -> (Records, u64) {
    let mut records = Records::new();
    let newest = registry.newest().await.unwrap();
    let scan = registry.scan(|entries| {
        records.extend(entries.into_iter().map(|(key, record)| (key, record.unwrap())));
    });
    scan.await.unwrap();
    (records, newest.revision)
}

/// A registry of its own connection on `server`.
pub fn redis_registry(server: &RedisServer, log_changes: usize) -> Arc<RedisRegistry> {
    let settings =
        RedisSettings { key_prefix: "test:".into(), ..RedisSettings::new(server.url()).unwrap() };
    let connector = settings.connector().unwrap();
    Arc::new(RedisRegistry::connect_with(&settings, connector, log_changes))
}

/// Waits for `condition`, and says how long it took.
pub async fn until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}
