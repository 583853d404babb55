//! Storage of what operators change while traffic flows: one map of records, with a revision
//! that counts up by one with every write.
//!
//! A record is a key and bytes; what they mean (a client, a policy, a mode) is for whoever writes
//! them, but for the time at which a record expires: [`has_expired`]. Counters are not here. The
//! port is [`Registry`].
//!
//! * [`redis`]: the form that replicas share.
//! * [`embedded`]: the form for a single process, a file.
//! * [`any`]: either, as the settings say.

pub mod any;
pub mod embedded;
pub mod redis;

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::Value;

use crate::domain::Timestamp;

/// A record as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The bytes that were written.
    pub value: Bytes,
    /// The revision of the write: the record's etag.
    pub revision: u64,
}

/// One change of a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The key of the record; any bytes. A write names a key once.
    pub key: Bytes,
    /// The state that the write expects.
    pub expect: Expect,
    /// The value afterwards; none: the record is deleted.
    pub value: Option<Bytes>,
}

/// The state of a record that a write expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// Whatever.
    Anything,
    /// No record.
    Absent,
    /// A record.
    Present,
    /// The record of this revision.
    Revision(u64),
    /// A record that [`has_expired`] by the clock of the registry.
    Expired,
}

/// Returns whether a record of this value has expired at `now`: it is a JSON object, and its
/// `expires_at`, in microseconds since 1970, is not later.
pub fn has_expired(value: &[u8], now: Timestamp) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(value) else { return false };
    let expires_at = value.get("expires_at").and_then(Value::as_u64);
    expires_at.is_some_and(|at| at <= now.as_micros())
}

/// A point in the history of a registry: a write, and with it every write before.
///
/// A registry may lose its newest writes: a crash, a failover to a replica that is behind, a
/// restored backup. The next write then makes a revision that was made before, with another tag.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark {
    /// The revision of the write; 0: before the first one.
    pub revision: u64,
    /// The random tag of the write.
    pub tag: u64,
}

/// A write that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The write.
    pub mark: Mark,
    /// The write before it.
    pub previous: Mark,
    /// The records that were there before, one per change, same order.
    pub before: Vec<Option<Record>>,
}

/// A key and its record now; none: there is none.
pub type Update = (Bytes, Option<Record>);

/// The writes since a mark.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delta {
    /// Every change since, oldest first; a key may be there more than once.
    Changes {
        /// The last of the writes.
        mark: Mark,
        /// The changes.
        entries: Vec<Update>,
    },
    /// The log does not have the mark: it no longer reaches back that far, or the registry lost
    /// that write. Scan.
    TooOld,
}

/// The reason why the registry did not do it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// A change expects another state; nothing was written.
    #[error("change {index} of the write expects {expected:?}, but there is {found:?}")]
    Conflict {
        /// The index of the change.
        index: usize,
        /// The state that it expects.
        expected: Expect,
        /// The revision of the record that is there, if one is.
        found: Option<u64>,
    },
    /// It cannot be reached, refuses, or does not answer a question. Nothing was written.
    #[error("the registry cannot be reached: {0}")]
    Unavailable(String),
    /// A write was sent, and its answer did not come: it may have happened, or may happen yet.
    #[error("the registry did not answer, and the change may have happened: {0}")]
    Unknown(String),
    /// Its contents cannot be read.
    #[error("the registry holds what cannot be read: {0}")]
    Corrupt(String),
}

/// The storage of records.
///
/// # Concurrency
/// Writes of all processes happen one after the other, each as a whole. An acknowledged write
/// outlives the process.
pub trait Registry: Send + Sync + 'static {
    /// Does all `changes` or, if one expects what is not so, none. No changes are no write: the
    /// mark is the newest.
    fn write(
        &self,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<Written, RegistryError>> + Send;

    /// The record of `key`.
    fn read(
        &self,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Record>, RegistryError>> + Send;

    /// The newest write.
    fn newest(&self) -> impl Future<Output = Result<Mark, RegistryError>> + Send;

    /// The writes since `mark`: all of them or, if they are many, the oldest. The caller has all
    /// once the answer ends with the mark it asked for.
    fn since(&self, mark: Mark) -> impl Future<Output = Result<Delta, RegistryError>> + Send;

    /// Every record, some thousand at a time, in no order. A record that changes meanwhile is
    /// reported as it was or as it is: [`Self::since`] the newest write before the scan has these
    /// changes.
    fn scan(
        &self,
        each: impl FnMut(Vec<Update>) + Send,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// The clock of the registry, the same for all that use it: what has expired is judged by it
    /// alone.
    fn now(&self) -> impl Future<Output = Result<Timestamp, RegistryError>> + Send;

    /// Checks that the registry takes writes, by one that changes no record and makes no revision.
    fn probe(&self) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Notes the process `id` among the replicas for the next seconds, and returns all that are
    /// there. A registry of one process has nobody else.
    fn beat(&self, id: u128) -> impl Future<Output = Result<Vec<u128>, RegistryError>> + Send {
        std::future::ready(Ok(vec![id]))
    }

    /// Takes the process `id` from the replicas.
    fn leave(&self, _id: u128) -> impl Future<Output = Result<(), RegistryError>> + Send {
        std::future::ready(Ok(()))
    }

    /// True if other processes may use it.
    fn is_shared(&self) -> bool {
        false
    }

    /// Keeps what the process `id` saw in a second, by its number, for some seconds.
    fn post(
        &self,
        _second: u64,
        _id: u128,
        _seen: Bytes,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send {
        std::future::ready(Ok(()))
    }

    /// What processes saw in a second.
    fn posts(
        &self,
        _second: u64,
    ) -> impl Future<Output = Result<Vec<(u128, Bytes)>, RegistryError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Resolves when there may be something new. It may be late or never, so the caller polls, too.
    ///
    /// # Cancel safety
    /// A dropped wait loses at most a notice.
    fn news(&self) -> impl Future<Output = ()> + Send;
}

/// Makes the tags of writes: no two are alike, whichever process makes them.
#[derive(Debug, Default)]
struct Tags {
    secret: RandomState,
    made: AtomicU64,
}

impl Tags {
    fn next(&self) -> u64 {
        self.secret.hash_one(self.made.fetch_add(1, Ordering::Relaxed))
    }
}

/// The changes that the log keeps by default.
pub const DEFAULT_LOG_CHANGES: usize = 20_000;
/// The approximate number of records in one batch of a scan.
const SCAN_BATCH: usize = 1_000;
/// About how many changes [`Registry::since`] gives at a time; a write is never divided.
const DELTA_PAGE: usize = 4_096;
