//! The tables of the embedded registry's database, and its values and errors as callers know them.

use redb::TableDefinition;

use crate::control::registry::{Record, RegistryError};

/// Key to (revision, value).
pub(super) const RECORDS: TableDefinition<'_, &[u8], (u64, &[u8])> =
    TableDefinition::new("records");
/// Every change of the newest writes.
pub(super) const LOG: TableDefinition<'_, At, Logged> = TableDefinition::new("log");
/// The tags of the writes in the log, and of the one before, by revision. Files of earlier builds
/// have no such table; a write without a tag has tag 0.
pub(super) const TAGS: TableDefinition<'_, u64, u64> = TableDefinition::new("tags");
/// Numbers by name.
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The number of the newest revision.
pub(super) const REVISION: &str = "revision";

/// The number of probes that the file took.
pub(super) const PROBES: &str = "probes";

/// The place of a change in the log: its revision, and its index in the write.
pub(super) type At = (u64, u64);
/// A change as the log has it: key and value; no value: nothing is there afterwards.
pub(super) type Logged = (&'static [u8], Option<&'static [u8]>);

pub(super) fn record((revision, value): (u64, &[u8])) -> Record {
    Record { value: value.to_vec().into(), revision }
}

/// The error of a failed access, as callers know it.
pub(super) fn fault(error: &redb::Error) -> RegistryError {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::UpgradeRequired(_) => RegistryError::Corrupt(error.to_string()),
        _ => RegistryError::Unavailable(error.to_string()),
    }
}
