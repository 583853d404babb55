//! The progress of a follower, and the age of what its mirror holds.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The progress of a follower.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent of each other")]
pub struct Progress {
    /// The mirror is as the registry was at this revision; 0 while everything is read.
    pub revision: u64,
    /// The last look at the registry whose answer is in the mirror.
    pub look: u64,
    /// The mirror has been complete once; before that it holds a part at most.
    pub synced: bool,
    /// The records that have come while everything is read.
    pub records: usize,
    /// A first attempt has ended, well or not.
    pub tried: bool,
    /// The last attempt reached the registry.
    pub reached: bool,
    /// The mirror puts in force what came, which may take long.
    pub settling: bool,
}

/// Marks the progress as settling until it is dropped.
pub(super) struct Settling<'a>(&'a watch::Sender<Progress>);

impl<'a> Settling<'a> {
    pub(super) fn new(progress: &'a watch::Sender<Progress>) -> Self {
        progress.send_modify(|progress| progress.settling = true);
        Self(progress)
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|progress| progress.settling = false);
    }
}

/// The age of what the mirror holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// As the registry is, but for changes of the last moment.
    Fresh,
    /// As the registry was `age` ago; it has not answered since.
    Stale {
        /// The time since the registry was last seen.
        age: Duration,
        /// The reason why it was not seen since.
        reason: String,
    },
    /// The registry was never read, or never to its end: the mirror lacks records.
    Unread {
        /// The reason.
        reason: String,
    },
}

/// The last contact with the registry.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// The start of the last look, or the end of the last own write, that left nothing to follow.
    pub(super) seen: Option<Instant>,
    /// The reason why the last look failed.
    pub(super) failure: Option<String>,
}
