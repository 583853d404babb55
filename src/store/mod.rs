//! Where counters live: the port, and what can go wrong behind it.
//!
//! A store decides one [`Group`] in one atomic step. It knows nothing of policies, of what to do when it
//! fails, or of other replicas: those are layers above it.

pub mod memory;
pub mod redis;

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::{Commit, Group, Key, Reading};

pub use memory::MemoryStore;

/// What a store says of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// One per claim, same order; none where the store could not be reached for that claim.
    pub readings: Vec<Option<Reading>>,
    /// Why readings are missing; none when all are there.
    pub failure: Option<StoreError>,
}

impl Answer {
    /// A reading for every claim.
    pub fn full(readings: Vec<Reading>) -> Self {
        Self { readings: readings.into_iter().map(Some).collect(), failure: None }
    }

    /// No reading for any of `claims` claims.
    pub fn none(claims: usize, failure: StoreError) -> Self {
        Self { readings: vec![None; claims], failure: Some(failure) }
    }
}

/// A place for counters.
///
/// # Concurrency
/// Groups are decided as if one after the other, also when several replicas share the place.
pub trait LimitStore: Send + Sync + 'static {
    /// Decides `group` and charges what `commit` says, and answers no later than `deadline`.
    ///
    /// A failure is part of the answer. A step that missed its deadline may have been charged; it is never
    /// sent again.
    ///
    /// # Cancel safety
    /// A dropped call is charged once or not at all.
    fn decide(
        &self,
        group: &Group,
        commit: Commit,
        deadline: Instant,
    ) -> impl Future<Output = Answer> + Send;

    /// Empties the counters of `keys`, and answers no later than `deadline` how many of them held something.
    ///
    /// # Errors
    /// When the store did not answer; the counters may have been emptied.
    fn forget(
        &self,
        keys: &[Key],
        deadline: Instant,
    ) -> impl Future<Output = Result<u32, StoreError>> + Send;
}

impl<S: LimitStore> LimitStore for Arc<S> {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Instant) -> Answer {
        S::decide(self, group, commit, deadline).await
    }

    async fn forget(&self, keys: &[Key], deadline: Instant) -> Result<u32, StoreError> {
        S::forget(self, keys, deadline).await
    }
}

/// Why a store gave no reading, by what an operator can do about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Connected, but the answer did not come in time.
    #[error("no answer from the store before the deadline")]
    Timeout,
    /// Not connected, or more calls are waiting than the store takes.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The store answered with an error, such as OOM or READONLY.
    #[error("the store refused: {0}")]
    Rejected(String),
    /// The store's answer made no sense.
    #[error("the store's answer cannot be read: {0}")]
    Protocol(String),
}

impl StoreError {
    /// A short name for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable(_) => "unavailable",
            Self::Rejected(_) => "rejected",
            Self::Protocol(_) => "protocol",
        }
    }
}
