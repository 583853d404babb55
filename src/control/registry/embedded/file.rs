//! The file of the embedded registry: found, made, locked, and left alone while it is damaged. Its
//! contents are not known here.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError};
use tokio::time::Instant;

use super::tables::{self, LOG, NUMBERS, RECORDS, TAGS};
use crate::control::registry::RegistryError;
use crate::telemetry::panics;

/// The part of the file that is kept in memory. Small, as all records are in memory already,
/// decoded.
const CACHE_BYTES: usize = 16 << 20;

/// The shortest and the longest wait before a damaged file is opened again: that may read all of
/// it.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// About the size of an empty registry.
const PROBE_BYTES: usize = 1 << 16;

/// The next step for the operator of a damaged file.
const REMEDY: &str = "restore it from a backup, or move it away to begin without what operators \
                      changed; decisions go on with what is in memory";

/// The file, open from the first access on that finds or makes it.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    database: Mutex<Option<Arc<Database>>>,
    /// Set while the file cannot be read.
    damage: Mutex<Option<Damage>>,
}

/// A file that cannot be read.
#[derive(Debug)]
pub(super) struct Damage {
    error: RegistryError,
    /// The file as it was then: another one is opened at once.
    stamp: Option<Stamp>,
    wait: Duration,
    retry: Instant,
}

/// Device, inode, size and time of change.
type Stamp = (u64, u64, u64, (i64, i64));

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, database: Mutex::default(), damage: Mutex::default() }
    }

    /// Does `work`. A damaged file fails it, is closed, and is left alone for a while.
    pub(super) fn guard<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        if let Some(damage) = &*self.damage.lock()
            && Instant::now() < damage.retry
            && self.stamp() == damage.stamp
        {
            return Err(damage.error.clone());
        }
        let outcome = panics::caught(|| work(self)).unwrap_or_else(|panic| {
            let path = self.path.display();
            Err(RegistryError::Corrupt(format!("{path} is damaged ({panic}): {REMEDY}")))
        });
        match &outcome {
            Err(error @ RegistryError::Corrupt(_)) => self.set_damaged(error),
            _ => *self.damage.lock() = None,
        }
        outcome
    }

    fn set_damaged(&self, error: &RegistryError) {
        let database = self.database.lock().take();
        // It panics again where its own state is half done.
        drop(panics::caught(|| drop(database)));
        let mut damage = self.damage.lock();
        let [shortest, longest] = RETRY;
        let wait = damage.as_ref().map_or(shortest, |damage| (damage.wait * 2).min(longest));
        let (error, stamp) = (error.clone(), self.stamp());
        *damage = Some(Damage { error, stamp, wait, retry: Instant::now() + wait });
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(&self.path).ok()?;
        Some((meta.dev(), meta.ino(), meta.len(), (meta.mtime(), meta.mtime_nsec())))
    }

    /// The database, if the file is there.
    pub(super) fn existing(&self) -> Result<Option<Arc<Database>>, RegistryError> {
        let mut database = self.database.lock();
        if database.is_none() {
            match builder().open(&self.path) {
                Ok(opened) => *database = Some(Arc::new(opened)),
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(self.fault(error.into())),
            }
        }
        Ok(database.clone())
    }

    /// The database, new and empty if the file is not there.
    ///
    /// The file gets its name when it is complete, so that one that was begun by a killed process
    /// is never met.
    pub(super) fn make(&self) -> Result<Arc<Database>, RegistryError> {
        let mut database = self.database.lock();
        if let Some(database) = &*database {
            return Ok(Arc::clone(database));
        }
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // A name of its own: another process may be at the same.
        let mut begun = self.path.clone().into_os_string();
        begun.push(format!(".new-{:016x}", RandomState::new().hash_one(std::process::id())));
        let begun = PathBuf::from(begun);
        let made = fs::create_dir_all(directory)
            .map_err(redb::Error::from)
            .and_then(|()| begin(&begun))
            .and_then(|made| Ok(give_name(&begun, &self.path, directory).map(|()| made)?));
        drop(fs::remove_file(&begun));
        let made = match made {
            Err(redb::Error::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                builder().open(&self.path).map_err(redb::Error::from)
            }
            made => made,
        };
        Ok(Arc::clone(database.insert(Arc::new(made.map_err(|error| self.fault(error))?))))
    }

    /// Checks that a file can be made where the registry will be. Leaves nothing behind, also when
    /// the process ends meanwhile: the file loses its name before it is written.
    pub(super) fn probe_directory(&self) -> Result<(), RegistryError> {
        let is_there = |path: &&Path| fs::symlink_metadata(path).is_ok();
        let mut places = self.path.ancestors().skip(1).filter(|path| *path != Path::new(""));
        let place = places.find(is_there).unwrap_or(Path::new("."));
        let probe = place.join(format!(".tollgate-{:016x}", RandomState::new().hash_one(0)));
        let made = OpenOptions::new().write(true).create_new(true).open(&probe);
        let written = made.and_then(|mut file| {
            fs::remove_file(&probe)?;
            file.write_all(&vec![0; PROBE_BYTES])?;
            file.sync_all()
        });
        written.map_err(|error| self.fault(error.into()))
    }

    /// The error of a failed access. After a fault of the disk the database refuses everything
    /// until it is opened again, which the next access does.
    pub(super) fn failed(&self, error: redb::Error) -> RegistryError {
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            *self.database.lock() = None;
        }
        self.fault(error)
    }

    fn fault(&self, error: redb::Error) -> RegistryError {
        let path = self.path.display();
        match error {
            redb::Error::DatabaseAlreadyOpen => {
                RegistryError::Unavailable(format!("{path} is in use by another process"))
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                RegistryError::Corrupt(format!("{path} is no registry: {REMEDY}"))
            }
            other => match tables::fault(&other) {
                RegistryError::Corrupt(reason) => {
                    RegistryError::Corrupt(format!("{path} is damaged ({reason}): {REMEDY}"))
                }
                RegistryError::Unavailable(reason) => {
                    RegistryError::Unavailable(format!("{path}: {reason}"))
                }
                other => other,
            },
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn is_absent(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(redb::StorageError::Io(error))
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// An empty registry at `path`, where nothing is.
fn begin(path: &Path) -> Result<Database, redb::Error> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let database = builder().create_file(file)?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(LOG)?;
    transaction.open_table(TAGS)?;
    transaction.open_table(NUMBERS)?;
    transaction.commit()?;
    Ok(database)
}

/// Names a file for good, unless the name is taken.
fn give_name(begun: &Path, path: &Path, directory: &Path) -> io::Result<()> {
    match fs::hard_link(begun, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        // Not every file system has links.
        Err(_) => fs::rename(begun, path)?,
        Ok(()) => {}
    }
    fs::File::open(directory)?.sync_all()
}
