//! A registry in memory that keeps the port's promises: one map, whole writes, a log of every change.
#![allow(dead_code, unreachable_pub, reason = "shared by test binaries that use a part each")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tollgate::control::registry::{
    Change, Delta, Expect, Mark, Record, Registry, RegistryError, Update, Written, has_expired,
};
use tollgate::domain::{Clock as _, ManualClock, Timestamp};

/// Records in memory.
#[derive(Debug, Default)]
pub struct MapRegistry {
    inner: Mutex<Inner>,
    clock: Arc<ManualClock>,
    news: Notify,
    away: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    revision: u64,
    records: BTreeMap<Bytes, Record>,
    log: Vec<(u64, Update)>,
}

impl MapRegistry {
    /// An empty one that goes by `clock`.
    pub fn new(clock: Arc<ManualClock>) -> Self {
        Self { clock, ..Self::default() }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.inner.lock().records.len()
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.inner.lock().revision
    }

    /// From now on nobody reaches it, or everybody again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), RegistryError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(RegistryError::Unavailable("it is away".to_owned()));
        }
        Ok(())
    }
}

/// The write of `revision`: this registry loses none, so none needs a tag of its own.
fn mark(revision: u64) -> Mark {
    Mark { revision, tag: revision }
}

impl Registry for MapRegistry {
    async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        self.check()?;
        let mut inner = self.inner.lock();
        if changes.is_empty() {
            let mark = mark(inner.revision);
            return Ok(Written { mark, previous: mark, before: Vec::new() });
        }
        for (index, change) in changes.iter().enumerate() {
            let there = inner.records.get(&change.key);
            let found = there.map(|record| record.revision);
            let holds = match change.expect {
                Expect::Anything => true,
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Revision(wanted) => found == Some(wanted),
                Expect::Expired => {
                    there.is_some_and(|record| has_expired(&record.value, self.clock.now()))
                }
            };
            if !holds {
                return Err(RegistryError::Conflict { index, expected: change.expect, found });
            }
        }
        inner.revision += 1;
        let revision = inner.revision;
        let mut before = Vec::new();
        for Change { key, value, .. } in changes {
            let record = value.map(|value| Record { value, revision });
            inner.log.push((revision, (key.clone(), record.clone())));
            before.push(match record {
                Some(record) => inner.records.insert(key, record),
                None => inner.records.remove(&key),
            });
        }
        drop(inner);
        self.news.notify_waiters();
        Ok(Written { mark: mark(revision), previous: mark(revision - 1), before })
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Record>, RegistryError> {
        self.check()?;
        Ok(self.inner.lock().records.get(key).cloned())
    }

    async fn newest(&self) -> Result<Mark, RegistryError> {
        self.check()?;
        Ok(mark(self.inner.lock().revision))
    }

    async fn since(&self, since: Mark) -> Result<Delta, RegistryError> {
        self.check()?;
        let inner = self.inner.lock();
        let later = inner.log.iter().filter(|(at, _)| *at > since.revision);
        let entries = later.map(|(_, entry)| entry.clone()).collect();
        Ok(Delta::Changes { mark: mark(inner.revision), entries })
    }

    async fn scan(&self, mut tell: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        self.check()?;
        let inner = self.inner.lock();
        tell(inner.records.iter().map(|(key, r)| (key.clone(), Some(r.clone()))).collect());
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, RegistryError> {
        self.check()?;
        Ok(self.clock.now())
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        self.check()
    }

    async fn news(&self) {
        self.news.notified().await;
    }
}
