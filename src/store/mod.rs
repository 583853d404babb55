//! The port to the counters, and the errors of a store.
//!
//! A store decides one [`Group`] in one atomic step. Policies, failover and the coordination of
//! replicas are the layers above it.

mod deadline;
pub mod memory;
pub mod recovery;
pub mod redis;
mod split;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use crate::domain::{
    Amendment, Claim, Commit, Group, Key, Reading, Settled, Settlement, Timestamp,
};

pub use deadline::{Allowance, Deadline};
pub use memory::MemoryStore;

/// Readings by claim. Most requests have one.
pub type Readings = SmallVec<[Option<Reading>; 1]>;

/// The answer of a store to a group.
#[derive(Debug)]
pub struct Answer {
    /// One per claim, in the same order. `None` if the store gave no reading for that claim. An
    /// answer of another length is a protocol error: none of its readings is used.
    pub readings: Readings,
    /// The reason for missing readings; `None` if there are none missing.
    pub failure: Option<StoreError>,
    /// The outcomes of decisions that the store was late with. Several for a request that several
    /// servers decide.
    pub late: Vec<Late>,
    /// Charges that stand only if the request is admitted, of a request that the store has decided
    /// in part.
    pub held: Option<Held>,
}

/// Charges that are given back unless they are kept.
pub struct Held(Option<Box<dyn FnOnce() + Send>>);

impl Held {
    /// Charges that `give_back` undoes.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }

    /// The request is admitted: the charges stand.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// Resolves when the store has decided after all; to none if that will never be known.
pub struct Late(Pin<Box<dyn Future<Output = Option<LateAnswer>> + Send>>);

/// A decision that came too late for its request.
pub struct LateAnswer {
    /// True for the claims that were charged. One per claim of the request, in the same order.
    pub charged: Vec<bool>,
    /// The time of the decision on the clock of the store.
    pub at: Timestamp,
    /// Amends counters where they were charged, if that is still possible.
    pub amend: Box<dyn FnOnce(Vec<Amendment>) + Send>,
}

impl Late {
    /// Resolves as `answer` does.
    pub fn new(answer: impl Future<Output = Option<LateAnswer>> + Send + 'static) -> Self {
        Self(Box::pin(answer))
    }
}

impl Future for Late {
    type Output = Option<LateAnswer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Late")
    }
}

impl fmt::Debug for LateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateAnswer").field("charged", &self.charged).finish_non_exhaustive()
    }
}

impl Answer {
    /// An answer with a reading for every claim.
    pub fn full(readings: impl IntoIterator<Item = Reading>) -> Self {
        let readings = readings.into_iter().map(Some).collect();
        Self { readings, failure: None, late: Vec::new(), held: None }
    }

    /// An answer without a reading for any of `claims` claims.
    pub fn none(claims: usize, failure: StoreError) -> Self {
        let readings = smallvec![None; claims];
        Self { readings, failure: Some(failure), late: Vec::new(), held: None }
    }
}

/// A backend that holds counters.
///
/// # Concurrency
/// Decisions are serializable, also among replicas that share the store.
pub trait LimitStore: Send + Sync + 'static {
    /// Decides `group` and charges it according to `commit`. Answers no later than `deadline`.
    ///
    /// A failure is part of the answer. A decision that missed its deadline may have been charged;
    /// it is never retried.
    ///
    /// # Cancel safety
    /// A dropped call is charged once or not at all.
    fn decide(
        &self,
        group: &Group,
        commit: Commit,
        deadline: Deadline,
    ) -> impl Future<Output = Answer> + Send;

    /// Resets the counters of `keys`, and returns how many of them were not empty. Answers no later
    /// than `deadline`.
    ///
    /// # Errors
    /// Fails if the store did not answer; the counters may have been reset.
    fn forget(
        &self,
        keys: &[Key],
        deadline: Deadline,
    ) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// Settles a hold. The first poll sends it, ahead of decisions that are asked for later.
    ///
    /// # Errors
    /// Fails if the store did not answer. It may have been settled: a settlement takes effect once,
    /// so it may be sent again until its hold has ended.
    fn settle(
        &self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// True if the parts of `group` are decided one by one, by several servers. Its denials are
    /// then no proof that the same request is denied again, and it asks for no leases.
    fn splits(&self, _group: &Group) -> bool {
        false
    }
}

/// Knows which counters will probably deny a request that several servers decide.
pub trait Suspects: fmt::Debug + Send + Sync {
    /// The time at which `claim` fits again, if it has failed lately.
    fn suspect(&self, claim: &Claim, now: Instant) -> Option<Instant>;
}

impl<S: LimitStore> LimitStore for Arc<S> {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        S::decide(self, group, commit, deadline).await
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        S::forget(self, keys, deadline).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        S::settle(self, settlement).await
    }

    fn splits(&self, group: &Group) -> bool {
        S::splits(self, group)
    }
}

/// The reason why a store gave no reading. One variant per remedy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Connected, but the answer did not arrive in time.
    #[error("no answer from the store before the deadline")]
    Timeout,
    /// Not connected, or the queue of the store is full.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The store answered with an error, such as OOM or READONLY.
    #[error("the store refused: {0}")]
    Rejected(String),
    /// The answer of the store violates the protocol.
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
