//! The file of the embedded registry: how it is found, made and locked. What is in it is not known here.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError};

use super::{File, LOG, NUMBERS, RECORDS, TAGS};
use crate::control::registry::RegistryError;

/// How much of the file is kept in memory: all records are in memory anyway, as what they mean.
const CACHE_BYTES: usize = 16 << 20;

impl File {
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
    /// The file gets its name when it is complete, so that one that was begun by a killed process is never met.
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

    /// What a failed access means. After a fault of the disk the database refuses everything until it is opened
    /// again, which the next access does.
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
                RegistryError::Corrupt(format!("{path} is no registry"))
            }
            other => match super::fault(&other) {
                RegistryError::Corrupt(reason) => {
                    RegistryError::Corrupt(format!("{path}: {reason}"))
                }
                RegistryError::Unavailable(reason) => {
                    RegistryError::Unavailable(format!("{path}: {reason}"))
                }
                conflict @ RegistryError::Conflict { .. } => conflict,
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
