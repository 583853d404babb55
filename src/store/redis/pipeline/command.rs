//! The commands that are no decisions, and who waits for their outcome.

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::{Amendment, Key, Settled, Settlement};
use crate::store::redis::decided::Undecided;

/// A command that is no decision.
#[derive(Debug)]
pub(in crate::store::redis) enum Command {
    Forget(Forget),
    Settle(Settle),
    /// Amendments whose outcome nobody waits for.
    Amend {
        /// In a cluster, all of one slot.
        amendments: Vec<Amendment>,
        /// The connection whose charges they amend; on another one they are dropped.
        connection: u64,
    },
}

/// A reset of counters.
#[derive(Debug)]
pub(in crate::store::redis) struct Forget {
    pub(in crate::store::redis) keys: Vec<Key>,
    pub(in crate::store::redis) deadline: Instant,
    /// The node must be told to answer although the slot is elsewhere.
    pub(in crate::store::redis) asking: bool,
    pub(in crate::store::redis) answer: oneshot::Sender<Result<u32, Undecided>>,
}

/// A hold to be settled.
#[derive(Debug)]
pub(in crate::store::redis) struct Settle {
    pub(in crate::store::redis) settlement: Settlement,
    /// The node must be told to answer although the slot is elsewhere.
    pub(in crate::store::redis) asking: bool,
    pub(in crate::store::redis) answer: oneshot::Sender<Result<Settled, Undecided>>,
}
