//! The registry in Redis, shared by every replica that uses it.
//!
//! A write is one call of a script (`write.lua`), which also adds it to a bounded log; readers that
//! know a revision read the log from there. A write is acknowledged when Redis has it: for no loss
//! when Redis itself crashes it needs `appendonly yes` and `appendfsync always`, and no failover to
//! a replica that is behind. Nothing here expires: Redis must not evict it, so its
//! `maxmemory-policy` must be `noeviction` or one that begins with `volatile`.
//!
//! * `wire`: arguments and replies as typed values.
//! * `link`: the connection.
//! * `news`: the subscription to notices.
//!
//! Needs Redis 5 or later. A user with an ACL needs the commands that docs/redis.md lists:
//! `redis/inspect/permissions.rs` has those of the registry, too.

pub(in crate::control) mod link;
mod news;
mod wire;

use std::future::Future;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::link::Link;
use self::wire::{Names, Run, Writer};
use super::{
    Change, DEFAULT_LOG_CHANGES, DELTA_PAGE, Delta, Mark, Record, Registry, RegistryError,
    SCAN_BATCH, Tags, Update, Written,
};
use crate::domain::Timestamp;
use crate::redis::{Connector, RedisSettings, SetupError};

/// Records in Redis.
///
/// # Concurrency
/// One connection for commands and one for notices, for the whole process. They live on the runtime
/// it was made on; calls may come from any.
#[derive(Debug)]
pub struct RedisRegistry {
    link: Link,
    names: Names,
    writer: Writer,
    log_changes: usize,
    tags: Tags,
    news: watch::Receiver<()>,
}

impl RedisRegistry {
    /// A registry that connects when it is first asked; Redis need not be there yet. A task on the
    /// present tokio runtime listens for notices until the registry is dropped.
    ///
    /// # Errors
    /// Settings that lead to no Redis.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(settings: &RedisSettings) -> Result<Self, SetupError> {
        Ok(Self::connect_with(settings, settings.connector()?, DEFAULT_LOG_CHANGES))
    }

    /// A registry as of [`connect`](Self::connect) behind `connector`, whose log keeps
    /// `log_changes` changes, at least 1.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect_with(
        settings: &RedisSettings,
        connector: Connector,
        log_changes: usize,
    ) -> Self {
        let names = Names::new(&settings.key_prefix);
        let (sender, news) = watch::channel(());
        // Notices reach every node of a cluster; the records are in one slot.
        let records = connector.of_slot(names.slot());
        tokio::spawn(news::listen(connector, names.news.clone(), sender));
        Self {
            link: Link::new(records, Handle::current(), settings.response_timeout),
            names,
            writer: Writer::new(),
            log_changes,
            tags: Tags::default(),
            news,
        }
    }

    /// Up to `count` changes of whole writes since `mark`, and whether there may be more; none: the
    /// log does not have `mark`.
    async fn run(&self, mark: Mark, count: usize) -> Result<Option<(Run, bool)>, RegistryError> {
        let reply = self.link.query(&self.names.since(mark.revision, count)).await?;
        // What cannot be read is left behind by a scan.
        let Some(log) = wire::logged(reply) else { return Ok(None) };
        let full = log.len() == count;
        let mut log = log.into_iter();
        if mark.revision > 0 && log.next().and_then(|change| change.mark()) != Some(mark) {
            return Ok(None);
        }
        Ok(Run::after(mark.revision, log).map(|run| (run, full)))
    }
}

impl Registry for RedisRegistry {
    async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        if changes.is_empty() {
            let mark = self.newest().await?;
            return Ok(Written { mark, previous: mark, before: Vec::new() });
        }
        let tag = self.tags.next();
        let call = self.writer.call(&self.names, self.log_changes, tag, &changes);
        let written = wire::written(self.link.invoke(&call).await?, tag, &changes)?;
        if written.previous.revision > 0 && written.previous.tag == 0 {
            tracing::warn!(
                key = self.names.log(),
                revision = written.mark.revision,
                "the log of the registry was empty: something else trims it. Every replica reads \
                 all records again; leave this key to tollgate"
            );
        }
        Ok(written)
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Record>, RegistryError> {
        let reply = self.link.query(&self.names.read(key)).await?;
        let Some(stored) = wire::parse(reply)? else { return Ok(None) };
        let unreadable = || RegistryError::Corrupt("a record of an unknown format".into());
        wire::unpack(stored).map(Some).ok_or_else(unreadable)
    }

    async fn newest(&self) -> Result<Mark, RegistryError> {
        let reply = self.link.query(&self.names.newest()).await?;
        let newest = wire::logged(reply).ok_or_else(unreadable_log)?.pop();
        newest.map_or(Ok(Mark::default()), |newest| newest.mark().ok_or_else(unreadable_log))
    }

    async fn since(&self, mark: Mark) -> Result<Delta, RegistryError> {
        let mut count = DELTA_PAGE;
        loop {
            let Some((run, full)) = self.run(mark, count).await? else {
                return Ok(Delta::TooOld);
            };
            match run.newest {
                Some(mark) => return Ok(Delta::Changes { mark, entries: run.entries }),
                // A single write is larger than that.
                None if full => count *= 4,
                None => return Ok(Delta::Changes { mark, entries: Vec::new() }),
            }
        }
    }

    async fn scan(&self, mut each: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        let (mut cursor, mut unreadable) = (0, 0);
        loop {
            let reply = self.link.query(&self.names.scan(cursor, SCAN_BATCH)).await?;
            let (next, entries, bad) = wire::scanned(reply)?;
            unreadable += bad;
            each(entries);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        if unreadable > 0 {
            tracing::warn!(
                records = unreadable,
                "records in Redis cannot be read and are left out"
            );
        }
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, RegistryError> {
        wire::time(self.link.query(&redis::cmd("TIME")).await?)
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        self.link.invoke(&self.writer.probe(&self.names)).await.map(|_| ())
    }

    async fn beat(&self, id: u128) -> Result<Vec<u128>, RegistryError> {
        wire::replicas(self.link.invoke(&self.writer.beat(&self.names, id)).await?)
    }

    async fn leave(&self, id: u128) -> Result<(), RegistryError> {
        self.link.query(&self.names.leave(id)).await.map(|_| ())
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn post(&self, second: u64, id: u128, seen: Bytes) -> Result<(), RegistryError> {
        self.link.invoke(&self.writer.post(&self.names, second, id, &seen)).await.map(|_| ())
    }

    async fn posts(&self, second: u64) -> Result<Vec<(u128, Bytes)>, RegistryError> {
        wire::posts(self.link.query(&self.names.posts(second)).await?)
    }

    /// Counts from the call on, not from the first poll.
    fn news(&self) -> impl Future<Output = ()> + Send {
        let mut news = self.news.clone();
        news.mark_unchanged();
        async move {
            if news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn unreadable_log() -> RegistryError {
    RegistryError::Corrupt("the log of changes holds something else".into())
}
