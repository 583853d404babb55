//! Keeps what is in memory as the registry is: everything at the start, then change by change, whoever wrote it.
//!
//! It knows neither what records mean nor where they are kept. While the registry cannot be reached, what is in
//! memory stays.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::registry::{Change, Delta, Entry, Record, Registry, RegistryError, Written};

/// How long to wait for news before looking without: a lost notice costs less than the second in which replicas follow.
pub const DEFAULT_POLL: Duration = Duration::from_millis(500);

/// How many records are read between two lines of the log.
const SAY_EVERY: usize = 100_000;

/// What is in memory of the registry.
///
/// # Concurrency
/// Calls come one after the other, under a lock, perhaps on the task of a writer: they must not block. Their order
/// alone says what is newer: when the registry was restored, a record is replaced by one of a lower revision.
pub trait Mirror: Send + Sync + 'static {
    /// Puts each record in the place of what was there, or takes it out, in this order. An entry may be told again.
    fn apply(&self, entries: Vec<Entry>);

    /// Takes out every record whose key `keep` does not keep.
    fn retain(&self, keep: &dyn Fn(&[u8]) -> bool);
}

/// How far a follower is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// The mirror is as the registry was at this revision; 0 while everything is read.
    pub revision: u64,
    /// Whether the mirror has been complete once; before that it holds a part at most.
    pub synced: bool,
    /// How many records have come while everything is read.
    pub records: usize,
    /// Whether a first attempt has ended, well or not.
    pub tried: bool,
    /// Whether the last attempt reached the registry.
    pub reached: bool,
}

/// What keeps a mirror as its registry is.
///
/// # Concurrency
/// One [`Self::run`] at a time; everything else from anywhere.
pub struct Follower<R, M> {
    registry: Arc<R>,
    mirror: Arc<M>,
    poll: Duration,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    /// Somebody waits for a revision.
    hurry: Notify,
}

/// What is known of the mirror. Locked while it changes.
#[derive(Debug, Default)]
struct State {
    /// The mirror has every change up to this one; none: before the first scan, or while one is under way.
    revision: Option<u64>,
    /// Records that a scan met in a state newer than its revision, each with its own: older changes do not count.
    ahead: HashMap<Bytes, u64>,
    /// Whether the mirror was told anything yet.
    told: bool,
}

impl<R, M> fmt::Debug for Follower<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl<R, M> Follower<R, M> {
    /// A follower that looks at least every `poll`.
    pub fn new(registry: Arc<R>, mirror: Arc<M>, poll: Duration) -> Self {
        Self {
            registry,
            mirror,
            poll,
            state: Mutex::default(),
            progress: watch::Sender::default(),
            hurry: Notify::new(),
        }
    }

    /// What it follows.
    pub const fn registry(&self) -> &Arc<R> {
        &self.registry
    }

    /// What it keeps up to date.
    pub const fn mirror(&self) -> &Arc<M> {
        &self.mirror
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Resolves to true once a first attempt to read the registry has ended, well or not; to false when nothing more of
    /// it came within `patience`.
    pub async fn tried(&self, patience: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        loop {
            if progress.borrow_and_update().tried {
                return true;
            }
            // The sender is in self, so this ends by a change or late.
            if tokio::time::timeout(patience, progress.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Resolves once the mirror has been complete.
    pub async fn synced(&self) -> Progress {
        self.until(|progress| progress.synced).await
    }

    /// Resolves to true once the mirror is complete and has every change up to `revision`, to false after
    /// `patience`.
    pub async fn caught_up(&self, revision: u64, patience: Duration) -> bool {
        if self.state.lock().revision.is_some_and(|now| now >= revision) {
            return true;
        }
        self.hurry.notify_one();
        let there = self.until(|progress| progress.synced && progress.revision >= revision);
        tokio::time::timeout(patience, there).await.is_ok()
    }

    async fn until(&self, reached: impl FnMut(&Progress) -> bool) -> Progress {
        let mut progress = self.progress.subscribe();
        // The sender is in self.
        progress.wait_for(reached).await.map_or_else(|_| self.progress(), |progress| *progress)
    }
}

impl<R: Registry, M: Mirror> Follower<R, M> {
    /// Brings the mirror to a write of this process before its writer answers. False: not within `patience`; it follows
    /// later.
    pub async fn applied(&self, written: &Written, changes: &[Change], patience: Duration) -> bool {
        self.apply_own(written, changes);
        self.caught_up(written.revision, patience).await
    }

    /// Applies a write without asking the registry, if it is the very next. Other writers' changes come first
    /// otherwise.
    fn apply_own(&self, written: &Written, changes: &[Change]) {
        let mut state = self.state.lock();
        let Some(revision) = state.revision else { return };
        if revision.checked_add(1) != Some(written.revision) {
            return;
        }
        let entry = |change: &Change| {
            let record =
                |value: &Bytes| Record { value: value.clone(), revision: written.revision };
            (change.key.clone(), change.value.as_ref().map(record))
        };
        self.advance(&mut state, changes.iter().map(entry).collect(), written.revision);
    }

    /// Follows the registry until it is dropped.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the mirror as it is; another run goes on from there.
    pub async fn run(&self) {
        let mut outage = false;
        loop {
            // Before the look, so that no notice falls between the look and the wait.
            let mut news = pin!(self.registry.news());
            let looked = self.look().await;
            match &looked {
                Err(reason) if !outage => tracing::warn!(
                    %reason,
                    "what operators changed is kept as it was last known until the registry is back"
                ),
                Ok(()) if outage => {
                    tracing::info!(revision = self.progress().revision, "the registry is back");
                }
                _ => {}
            }
            outage = looked.is_err();
            self.progress.send_modify(|progress| {
                progress.tried = true;
                progress.reached = !outage;
            });
            tokio::select! {
                () = &mut news => {}
                () = self.hurry.notified() => {}
                () = tokio::time::sleep(self.poll) => {}
            }
        }
    }

    /// Brings the mirror to what the registry is now; if the log does not reach back even to what a scan found, to that.
    async fn look(&self) -> Result<(), RegistryError> {
        let mut scanned = false;
        loop {
            let from = self.state.lock().revision;
            let delta = match from {
                Some(from) => self.registry.since(from).await?,
                None => Delta::TooOld,
            };
            match delta {
                Delta::TooOld if scanned => return Ok(()),
                Delta::TooOld => self.scan().await?,
                Delta::Changes { revision, entries } => {
                    let mut state = self.state.lock();
                    if state.revision != from {
                        // A writer was faster: these are old in part.
                        continue;
                    }
                    if Some(revision) == from {
                        return Ok(());
                    }
                    self.advance(&mut state, entries, revision);
                    continue;
                }
            }
            scanned = true;
        }
    }

    /// Tells the mirror everything, and takes out what is gone.
    async fn scan(&self) -> Result<(), RegistryError> {
        let again = {
            let mut state = self.state.lock();
            state.revision = None;
            state.ahead.clear();
            self.progress.send_modify(|progress| (progress.revision, progress.records) = (0, 0));
            std::mem::replace(&mut state.told, true)
        };
        let (mut records, mut said) = (0, 0);
        let mut keys = Keys::default();
        let mut ahead: HashMap<Bytes, u64> = HashMap::new();
        let before = self.registry.write(Vec::new()).await?.revision;
        let scan = self.registry.scan(|entries| {
            for (key, record) in &entries {
                if again {
                    keys.insert(key);
                }
                if let Some(record) = record.as_ref().filter(|record| record.revision > before) {
                    ahead.insert(key.clone(), record.revision);
                }
            }
            records += entries.len();
            self.mirror.apply(entries);
            self.progress.send_modify(|progress| progress.records = records);
            if records >= said + SAY_EVERY {
                said = records;
                tracing::info!(records, "reading the registry");
            }
        });
        let revision = scan.await?;
        if said > 0 {
            tracing::info!(records, revision, "the registry is read");
        }
        ahead.retain(|_, of_record| *of_record > revision);
        let mut state = self.state.lock();
        if again {
            self.mirror.retain(&|key| keys.contains(key));
        }
        state.ahead = ahead;
        state.revision = Some(revision);
        self.progress.send_modify(|progress| {
            progress.revision = revision;
            progress.synced = true;
        });
        Ok(())
    }

    /// Applies the changes that lead to `revision` from the one before.
    fn advance(&self, state: &mut State, mut entries: Vec<Entry>, revision: u64) {
        if !state.ahead.is_empty() {
            entries.retain(|(key, record)| {
                let Some(ahead) = state.ahead.get(key) else { return true };
                let here = record.as_ref().is_some_and(|record| record.revision >= *ahead);
                if here {
                    state.ahead.remove(key);
                }
                here
            });
        }
        self.mirror.apply(entries);
        state.revision = Some(revision);
        self.progress.send_modify(|progress| progress.revision = revision);
    }
}

/// A set of keys by 128 bits of hash each, with a secret: a million of them are not held twice.
#[derive(Debug, Default)]
struct Keys {
    hashers: (RandomState, RandomState),
    set: HashSet<(u64, u64)>,
}

impl Keys {
    fn insert(&mut self, key: &[u8]) {
        self.set.insert(self.hash(key));
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.set.contains(&self.hash(key))
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }
}
