//! The registry in a file, for a single process: an embedded database (redb).
//!
//! A write is one transaction, on disk before it is acknowledged; a killed process leaves each
//! whole or absent. The file is made at the first write, and one that does not exist is an empty
//! registry: a directory that cannot be written does not keep tollgate from serving. The database
//! belongs to one process at a time. Every access is on a thread that may block. A damaged file
//! fails every access, also where the database panics.

mod file;
mod log;
mod tables;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use redb::WriteTransaction;
use redb::{ReadTransaction, ReadableDatabase as _, ReadableTable as _};
use tokio::sync::{mpsc, watch};

use self::file::File;
use self::tables::{LOG, NUMBERS, PROBES, RECORDS, record};
use super::{
    Change, Delta, Expect, Mark, Record, Registry, RegistryError, SCAN_BATCH, Tags, Update,
    Written, has_expired,
};
use crate::domain::{Clock as _, Timestamp, WallClock};

/// Records in a file.
///
/// # Concurrency
/// Reads see the registry between two writes and wait for none.
pub struct EmbeddedRegistry {
    file: Arc<File>,
    log_changes: u64,
    tags: Tags,
    news: watch::Sender<()>,
}

impl fmt::Debug for EmbeddedRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedRegistry").field("path", &self.file.path).finish_non_exhaustive()
    }
}

impl EmbeddedRegistry {
    /// The registry in the file at `path`, which need not be there. The log keeps at least
    /// `log_changes` changes, and whole writes.
    pub fn new(path: impl Into<PathBuf>, log_changes: usize) -> Self {
        Self {
            file: Arc::new(File::new(path.into())),
            log_changes: log_changes.max(1) as u64,
            tags: Tags::default(),
            news: watch::Sender::new(()),
        }
    }

    /// Reads from a state between two writes; none: there is no file.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<Option<T>, RegistryError> {
        self.access(move |file| {
            let Some(database) = file.existing()? else { return Ok(None) };
            let looked = database.begin_read().map_err(redb::Error::from);
            looked.and_then(|reader| look(&reader)).map(Some).map_err(|error| file.failed(error))
        })
        .await
    }

    /// Does `work` on a thread that may block.
    async fn access<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let file = Arc::clone(&self.file);
        let done = tokio::task::spawn_blocking(move || file.guard(work)).await;
        done.unwrap_or_else(|error| Err(RegistryError::Unavailable(error.to_string())))
    }
}

impl Registry for EmbeddedRegistry {
    async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        if changes.is_empty() {
            let mark = self.newest().await?;
            return Ok(Written { mark, previous: mark, before: Vec::new() });
        }
        let (kept, tag) = (self.log_changes, self.tags.next());
        let written = self.access(move |file| write(file, kept, tag, &changes)).await?;
        self.news.send_replace(());
        Ok(written)
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Record>, RegistryError> {
        let key = key.to_vec();
        let found = self.look(move |reader| {
            let found = reader.open_table(RECORDS)?.get(key.as_slice())?;
            Ok(found.map(|found| record(found.value())))
        });
        Ok(found.await?.flatten())
    }

    async fn newest(&self) -> Result<Mark, RegistryError> {
        Ok(self.look(log::newest_mark).await?.unwrap_or_default())
    }

    async fn since(&self, mark: Mark) -> Result<Delta, RegistryError> {
        let nothing = match mark.revision {
            0 => Delta::Changes { mark, entries: Vec::new() },
            _ => Delta::TooOld,
        };
        Ok(self.look(move |reader| log::delta(reader, mark)).await?.unwrap_or(nothing))
    }

    async fn scan(&self, mut each: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        let (sender, mut batches) = mpsc::channel(4);
        let handed_on = async {
            while let Some(batch) = batches.recv().await {
                each(batch);
            }
        };
        let scanned = self.look(move |reader| {
            let records = reader.open_table(RECORDS)?;
            let mut batch = Vec::with_capacity(SCAN_BATCH);
            for entry in records.iter()? {
                let (key, found) = entry?;
                batch.push((key.value().to_vec().into(), Some(record(found.value()))));
                // Without a receiver the scan was given up.
                if batch.len() == SCAN_BATCH && sender.blocking_send(batch.split_off(0)).is_err() {
                    break;
                }
            }
            drop(sender.blocking_send(batch));
            Ok(())
        });
        let ((), scanned) = tokio::join!(handed_on, scanned);
        scanned.map(Option::unwrap_or_default)
    }

    /// The wall clock of this machine.
    async fn now(&self) -> Result<Timestamp, RegistryError> {
        Ok(WallClock.now())
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        self.access(probe).await
    }

    /// Counts from the call on, not from the first poll.
    fn news(&self) -> impl Future<Output = ()> + Send {
        let mut news = self.news.subscribe();
        async move {
            if news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The outcome of a transaction that found no fault in the file.
type Outcome = Result<Written, RegistryError>;

fn write(file: &File, kept: u64, tag: u64, changes: &[Change]) -> Outcome {
    let database = match file.existing()? {
        Some(database) => database,
        // A write that fails in an empty registry must not make the file.
        None => match changes
            .iter()
            .position(|change| !matches!(change.expect, Expect::Anything | Expect::Absent))
        {
            Some(index) => return Err(conflict(changes, index, None)),
            None => file.make()?,
        },
    };
    let attempt = || -> Result<Outcome, redb::Error> {
        let mut transaction = database.begin_write()?;
        // Opening after a kill does not walk through the whole file.
        transaction.set_quick_repair(true);
        let outcome = change(&transaction, kept, tag, changes)?;
        if outcome.is_err() {
            transaction.abort()?;
            return Ok(outcome);
        }
        match transaction.commit() {
            Ok(()) => Ok(outcome),
            // Only its last step makes a commit last, and none tells which step failed.
            Err(error) => Ok(Err(match file.failed(error.into()) {
                RegistryError::Unavailable(reason) => RegistryError::Unknown(reason),
                other => other,
            })),
        }
    };
    attempt().map_err(|error| file.failed(error))?
}

/// Writes to the database, or where there is none, beside it.
fn probe(file: &File) -> Result<(), RegistryError> {
    let Some(database) = file.existing()? else { return file.probe_directory() };
    let attempt = || -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let probes = numbers.get(PROBES)?.map_or(0, |probes| probes.value());
            numbers.insert(PROBES, probes.wrapping_add(1))?;
        }
        Ok(transaction.commit()?)
    };
    attempt().map_err(|error| file.failed(error))
}

fn change(
    transaction: &WriteTransaction,
    kept: u64,
    tag: u64,
    changes: &[Change],
) -> Result<Outcome, redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    let mut before = Vec::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        let there = records.get(change.key.as_ref())?.map(|there| record(there.value()));
        let found = there.as_ref().map(|there| there.revision);
        let as_expected = match change.expect {
            Expect::Anything => true,
            Expect::Absent => there.is_none(),
            Expect::Present => found.is_some(),
            Expect::Revision(revision) => found == Some(revision),
            Expect::Expired => {
                there.as_ref().is_some_and(|there| has_expired(&there.value, WallClock.now()))
            }
        };
        if !as_expected {
            return Ok(Err(conflict(changes, index, found)));
        }
        before.push(there);
    }
    let (previous, mark) = log::begin(transaction, tag)?;
    let mut log = transaction.open_table(LOG)?;
    for (index, change) in changes.iter().enumerate() {
        let (key, value) = (change.key.as_ref(), change.value.as_deref());
        match value {
            Some(value) => drop(records.insert(key, (mark.revision, value))?),
            None => drop(records.remove(key)?),
        }
        log.insert((mark.revision, index as u64), (key, value))?;
    }
    log::trim(transaction, &mut log, kept)?;
    Ok(Ok(Written { mark, previous, before }))
}

fn conflict(changes: &[Change], index: usize, found: Option<u64>) -> RegistryError {
    let expected = changes.get(index).map_or(Expect::Anything, |change| change.expect);
    RegistryError::Conflict { index, expected, found }
}
