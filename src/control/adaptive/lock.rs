//! The lock of the replica that controls: a record of the registry that it renews.
//!
//! Each renewal is another revision of the record, and every write of scales expects the one that
//! its writer knows. So the revision is the fence: after another replica has taken the lock, a
//! write of the one before is refused, however late it comes.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::record::ADAPTIVE_LOCK;
use crate::control::registry::{Change, Expect, Record, Registry, RegistryError, Written};
use crate::domain::Timestamp;

/// The time for which a renewal holds.
const LASTS: Duration = Duration::from_secs(4);

/// The rest of that time at which it is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize, Serialize)]
struct Stored {
    process: String,
    until: u64,
}

/// The lock, as one process sees it.
#[derive(Debug)]
pub(super) struct Lock {
    process: String,
    /// The revision of the last renewal and its end; none: another process has it.
    held: Option<(u64, Timestamp)>,
}

impl Lock {
    pub(super) fn new(id: u128) -> Self {
        Self { process: format!("{id:032x}"), held: None }
    }

    /// Takes the lock, or renews it in time. False: another process has it. A registry of one
    /// process has none.
    pub(super) async fn take<R: Registry>(
        &mut self,
        registry: &R,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        if !registry.is_shared() || self.held.is_some_and(|(_, until)| !is_due(until, now)) {
            return Ok(true);
        }
        let expect = match self.held.take() {
            Some((revision, _)) => Expect::Revision(revision),
            None => match registry.read(ADAPTIVE_LOCK).await? {
                None => Expect::Absent,
                Some(record) if is_free(&record, now) => Expect::Revision(record.revision),
                Some(_) => return Ok(false),
            },
        };
        let written = registry.write(vec![Change { expect, ..self.change(now) }]).await;
        self.note(&written, now);
        match written {
            // Another process was first.
            Err(RegistryError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }

    /// `changes` that are written only while the lock is held, and that renew it.
    pub(super) fn with(&self, mut changes: Vec<Change>, now: Timestamp) -> Vec<Change> {
        if let Some((revision, _)) = self.held {
            changes.push(Change { expect: Expect::Revision(revision), ..self.change(now) });
        }
        changes
    }

    /// Notes the outcome of a write with the lock. One that did not happen, or may not have, ends
    /// it: the record says who has it.
    pub(super) fn note(&mut self, written: &Result<Written, RegistryError>, now: Timestamp) {
        let until = now.plus_micros(LASTS.as_micros() as u64);
        self.held = written.as_ref().ok().map(|written| (written.mark.revision, until));
    }

    fn change(&self, now: Timestamp) -> Change {
        let until = now.plus_micros(LASTS.as_micros() as u64).as_micros();
        let stored = Stored { process: self.process.clone(), until };
        let value = serde_json::to_vec(&stored).unwrap_or_default().into();
        let key = Bytes::from_static(ADAPTIVE_LOCK);
        Change { key, expect: Expect::Anything, value: Some(value) }
    }
}

fn is_due(until: Timestamp, now: Timestamp) -> bool {
    until.micros_since(now) < RENEWED_BEFORE.as_micros() as u64
}

/// True if the time of who has it is over. A record that cannot be read is nobody's.
fn is_free(record: &Record, now: Timestamp) -> bool {
    serde_json::from_slice(&record.value)
        .map_or(true, |stored: Stored| stored.until <= now.as_micros())
}

#[cfg(test)]
mod tests;
