//! The history of the embedded registry: the marks of its writes, and their changes as far as the
//! log reaches back.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata as _};
use redb::{Table, TableError, WriteTransaction};

use super::tables::{At, LOG, Logged, NUMBERS, REVISION, TAGS, record};
use crate::control::registry::{DELTA_PAGE, Delta, Mark};

/// Begins a write: the write before it, and its own mark.
pub(super) fn begin(transaction: &WriteTransaction, tag: u64) -> Result<(Mark, Mark), redb::Error> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    let mut tags = transaction.open_table(TAGS)?;
    let before = newest(&numbers)?;
    let previous = Mark { revision: before, tag: tag_of(&tags, before)? };
    let mark = Mark { revision: before + 1, tag };
    numbers.insert(REVISION, mark.revision)?;
    tags.insert(mark.revision, mark.tag)?;
    Ok((previous, mark))
}

/// Takes the oldest writes out of the log, as long as `kept` changes are left, and the tags that no
/// reader needs then.
pub(super) fn trim(
    transaction: &WriteTransaction,
    log: &mut Table<'_, At, Logged>,
    kept: u64,
) -> Result<(), redb::Error> {
    let mut surplus = log.len()?.saturating_sub(kept);
    while surplus > 0 {
        let Some(oldest) = log.first()?.map(|(at, _)| at.value().0) else { break };
        let changes = log.range((oldest, 0)..(oldest + 1, 0))?.count() as u64;
        if changes > surplus {
            break;
        }
        for _ in 0..changes {
            log.pop_first()?;
        }
        surplus -= changes;
    }
    let Some(oldest) = log.first()?.map(|(at, _)| at.value().0) else { return Ok(()) };
    let mut tags = transaction.open_table(TAGS)?;
    // The last write that is gone is where a reader may go on from.
    while tags.first()?.is_some_and(|(of, _)| of.value() + 1 < oldest) {
        tags.pop_first()?;
    }
    Ok(())
}

/// The writes since a mark.
pub(super) fn delta(reader: &ReadTransaction, since: Mark) -> Result<Delta, redb::Error> {
    let newest = newest_mark(reader)?;
    if since == newest {
        return Ok(Delta::Changes { mark: since, entries: Vec::new() });
    }
    let log = reader.open_table(LOG)?;
    let oldest = log.first()?.map_or(u64::MAX, |(at, _)| at.value().0);
    let in_log = since.revision < newest.revision && since.revision + 1 >= oldest;
    if !in_log || mark(reader, since.revision)? != since {
        return Ok(Delta::TooOld);
    }
    let (mut revision, mut entries) = (since.revision, Vec::new());
    for change in log.range((since.revision + 1, 0)..)? {
        let (at, change) = change?;
        let (at, (key, value)) = (at.value().0, change.value());
        if at != revision && entries.len() >= DELTA_PAGE {
            break;
        }
        revision = at;
        let there = value.map(|value| record((at, value)));
        entries.push((key.to_vec().into(), there));
    }
    Ok(Delta::Changes { mark: mark(reader, revision)?, entries })
}

/// The newest write.
pub(super) fn newest_mark(reader: &ReadTransaction) -> Result<Mark, redb::Error> {
    mark(reader, newest(&reader.open_table(NUMBERS)?)?)
}

/// The mark of a write that the log has, or of the one before.
fn mark(reader: &ReadTransaction, revision: u64) -> Result<Mark, redb::Error> {
    let tag = match reader.open_table(TAGS) {
        Ok(tags) => tag_of(&tags, revision)?,
        Err(TableError::TableDoesNotExist(_)) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(Mark { revision, tag })
}

fn tag_of(tags: &impl ReadableTable<u64, u64>, revision: u64) -> Result<u64, redb::Error> {
    Ok(tags.get(revision)?.map_or(0, |tag| tag.value()))
}

fn newest(numbers: &impl ReadableTable<&'static str, u64>) -> Result<u64, redb::Error> {
    Ok(numbers.get(REVISION)?.map_or(0, |revision| revision.value()))
}
