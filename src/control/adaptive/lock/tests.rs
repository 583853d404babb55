use parking_lot::Mutex;

use super::*;
use crate::control::registry::embedded::EmbeddedRegistry;
use crate::control::registry::{DEFAULT_LOG_CHANGES, Delta, Mark, Update};

/// A registry in a file, as if other processes used it.
#[derive(Debug)]
struct Shared {
    inner: EmbeddedRegistry,
    now: Mutex<Timestamp>,
    _dir: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inner = EmbeddedRegistry::new(dir.path().join("registry"), DEFAULT_LOG_CHANGES);
        Self { inner, now: Mutex::new(Timestamp::from_micros(1)), _dir: dir }
    }
}

impl Registry for Shared {
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
        self.inner.since(mark).await
    }

    async fn scan(&self, each: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        self.inner.scan(each).await
    }

    async fn now(&self) -> Result<Timestamp, RegistryError> {
        Ok(*self.now.lock())
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        self.inner.probe().await
    }

    async fn news(&self) {
        self.inner.news().await;
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn scale(value: &'static [u8]) -> Vec<Change> {
    let key = Bytes::from_static(b"scale");
    vec![Change { key, expect: Expect::Anything, value: Some(Bytes::from_static(value)) }]
}

/// Writes with the lock, and returns whether it happened.
async fn write(registry: &Shared, lock: &mut Lock, value: &'static [u8], now: Timestamp) -> bool {
    let written = registry.write(lock.with(scale(value), now)).await;
    lock.note(&written, now);
    written.is_ok()
}

#[tokio::test]
async fn one_process_has_it_until_its_time_is_over() {
    let registry = Shared::new();
    let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
    let (mut one, mut other) = (Lock::new(1), Lock::new(2));
    assert!(one.take(&registry, at(100)).await.unwrap());
    assert!(!other.take(&registry, at(100)).await.unwrap());
    for second in 101..120 {
        assert!(one.take(&registry, at(second)).await.unwrap(), "it is renewed");
        assert!(!other.take(&registry, at(second)).await.unwrap());
    }
    assert!(other.take(&registry, at(125)).await.unwrap(), "its time is over");
    assert!(!one.take(&registry, at(125)).await.unwrap(), "the renewal is refused");
    assert!(!one.take(&registry, at(126)).await.unwrap());
}

/// However late it comes, and although its writer still believes to have the lock.
#[tokio::test]
async fn write_of_one_that_has_lost_it_is_refused() {
    let registry = Shared::new();
    let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
    let (mut frozen, mut other) = (Lock::new(1), Lock::new(2));
    assert!(frozen.take(&registry, at(100)).await.unwrap());
    assert!(write(&registry, &mut frozen, b"one", at(101)).await);
    assert!(other.take(&registry, at(110)).await.unwrap());
    // Before the other has written anything, too.
    assert!(!write(&registry, &mut frozen, b"late", at(102)).await);
    assert!(write(&registry, &mut other, b"two", at(110)).await);
    assert_eq!(registry.read(b"scale").await.unwrap().unwrap().value, "two");
    assert!(!frozen.take(&registry, at(110)).await.unwrap());
    assert!(write(&registry, &mut other, b"three", at(111)).await, "its renewals go on");
}

#[tokio::test]
async fn damaged_record_is_nobodys_and_alone_there_is_none() {
    let registry = Shared::new();
    let key = Bytes::from_static(ADAPTIVE_LOCK);
    let value = Some(Bytes::from_static(b"{"));
    registry.write(vec![Change { key, expect: Expect::Anything, value }]).await.unwrap();
    let now = Timestamp::from_micros(5);
    assert!(Lock::new(1).take(&registry, now).await.unwrap());
    let mut alone = Lock::new(2);
    assert!(alone.take(&registry.inner, now).await.unwrap());
    assert_eq!(alone.with(scale(b"x"), now).len(), 1);
}
