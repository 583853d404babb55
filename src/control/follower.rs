//! Keeps memory as the registry is: everything at the start, then change by change.
//!
//! It knows neither what records mean nor where they are kept. While the registry cannot be
//! reached, what is in memory stays. The follower compares marks, not revisions: a registry that
//! lost its newest writes makes their revisions again, and everything is read anew then.

mod keys;
mod progress;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;

use self::keys::Keys;
use self::progress::{Contact, Settling};
pub use self::progress::{Freshness, Progress};
use super::registry::{Change, Delta, Mark, Record, Registry, RegistryError, Update, Written};

/// The longest wait for a notice before the follower looks: a lost notice costs less than the
/// second in which replicas follow.
pub const DEFAULT_POLL: Duration = Duration::from_millis(500);

/// The scans of one look: another one if the registry lost writes meanwhile.
const MAX_SCANS: usize = 2;

/// The longest look at the registry that is no sign of an outage.
const SILENCE: Duration = Duration::from_secs(1);

/// The records between two lines of the log.
const SAY_EVERY: usize = 100_000;

/// The registry's records in memory.
///
/// # Concurrency
/// Calls come one after the other, perhaps on the task of a writer: they must not block. Their
/// order alone says what is newer: when the registry was restored, a record is replaced by one of a
/// lower revision.
pub trait Mirror: Send + Sync + 'static {
    /// Puts each record in the place of what was there, or takes it out, in this order. An entry
    /// may come again.
    fn apply(&self, entries: Vec<Update>);

    /// Takes out every record whose key `keep` does not keep.
    fn retain(&self, keep: &dyn Fn(&[u8]) -> bool);

    /// Waits until everything that came is in force: the registry as it was at `revision`.
    ///
    /// # Cancel safety
    /// Dropped, what came is put in force nevertheless, in its order.
    fn settle(self: &Arc<Self>, revision: u64) -> impl Future<Output = ()> + Send {
        let _ = revision;
        std::future::ready(())
    }
}

/// Keeps a mirror as its registry is.
///
/// # Concurrency
/// One [`Self::run`] at a time; everything else from anywhere.
pub struct Follower<R, M> {
    registry: Arc<R>,
    mirror: Arc<M>,
    poll: Duration,
    followed: Mutex<Followed>,
    /// The number of looks at the registry that have begun.
    looks: AtomicU64,
    progress: watch::Sender<Progress>,
    contact: parking_lot::Mutex<Contact>,
    /// A caller waits for a revision.
    hurry: Notify,
}

/// The part of the registry's history that the mirror has. Locked while the mirror changes.
#[derive(Debug, Default)]
struct Followed {
    /// The mirror has every change up to this write; none: before the first scan, or while one is
    /// under way.
    mark: Option<Mark>,
    /// Records that a scan met in a state newer than its mark, each with its own revision: older
    /// changes do not count.
    ahead: HashMap<Bytes, u64>,
    /// A scan has begun before, so the mirror may hold records.
    scanned: bool,
}

impl Followed {
    /// Returns whether a scan met records of writes that the log, which is known up to `revision`,
    /// does not have: the registry lost these writes during the scan. `newest`: the log ends there.
    fn has_lost(&self, newest: bool, revision: u64) -> bool {
        self.ahead.values().any(|ahead| newest || *ahead <= revision)
    }
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
            followed: Mutex::default(),
            looks: AtomicU64::new(0),
            progress: watch::Sender::default(),
            contact: parking_lot::Mutex::default(),
            hurry: Notify::new(),
        }
    }

    /// The registry that it follows.
    pub const fn registry(&self) -> &Arc<R> {
        &self.registry
    }

    /// The mirror that it keeps up to date.
    pub const fn mirror(&self) -> &Arc<M> {
        &self.mirror
    }

    /// Its progress.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// The age of what the mirror holds.
    pub fn freshness(&self) -> Freshness {
        let synced = self.progress().synced;
        let contact = self.contact.lock();
        let reason = |otherwise: &str| contact.failure.clone().unwrap_or_else(|| otherwise.into());
        match contact.seen.filter(|_| synced) {
            None => Freshness::Unread { reason: reason("it is still being read") },
            Some(seen) => {
                let age = seen.elapsed();
                if contact.failure.is_none() && age < self.poll + SILENCE {
                    return Freshness::Fresh;
                }
                Freshness::Stale { age, reason: reason("it has not answered yet") }
            }
        }
    }

    /// Resolves to true once a first attempt to read the registry has ended, well or not; to false
    /// when nothing more of it came within `patience`.
    pub async fn tried(&self, patience: Duration) -> bool {
        self.until(patience, |progress| progress.tried).await
    }

    /// Resolves once the mirror has been complete.
    pub async fn synced(&self) -> Progress {
        let mut progress = self.progress.subscribe();
        // The sender is in self.
        let synced = progress.wait_for(|progress| progress.synced).await;
        synced.map_or_else(|_| self.progress(), |progress| *progress)
    }

    /// Resolves to true once the mirror is complete and has every change up to `revision` that the
    /// registry has now; to false when nothing more of it came within `patience`.
    pub async fn caught_up(&self, revision: u64, patience: Duration) -> bool {
        // A look that began before may answer from a history that the registry has lost.
        let looks = self.looks.load(Ordering::Relaxed);
        self.hurry.notify_one();
        self.until(patience, |progress| {
            progress.synced && progress.look > looks && progress.revision >= revision
        })
        .await
    }

    /// Resolves to true once the progress is as wanted; to false when the mirror got nothing more
    /// within `patience`, the time in which it settles apart.
    async fn until(&self, patience: Duration, wanted: impl Fn(&Progress) -> bool) -> bool {
        let mut progress = self.progress.subscribe();
        let (mut had, mut late) = (None, Instant::now() + patience);
        loop {
            let now = *progress.borrow_and_update();
            if wanted(&now) {
                return true;
            }
            if had.replace((now.revision, now.records)) != Some((now.revision, now.records)) {
                late = Instant::now() + patience;
            }
            if now.settling {
                // The sender is in self.
                drop(progress.changed().await);
                late = Instant::now() + patience;
                continue;
            }
            // The sender is in self, so this ends by a change or late.
            if tokio::time::timeout_at(late, progress.changed()).await.is_err() {
                return false;
            }
        }
    }
}

impl<R: Registry, M: Mirror> Follower<R, M> {
    /// Brings the mirror to a write of this process before its writer answers. False: the mirror
    /// got nothing more within `patience`; it follows later.
    pub async fn applied(&self, written: &Written, changes: &[Change], patience: Duration) -> bool {
        self.apply_own(written, changes).await
            || self.caught_up(written.mark.revision, patience).await
    }

    /// Applies a write without asking the registry, if the mirror has the write before it. False:
    /// other writers' changes come first, or the registry lost writes that the mirror has.
    async fn apply_own(&self, written: &Written, changes: &[Change]) -> bool {
        let mut followed = self.followed.lock().await;
        if followed.mark == Some(written.mark) {
            return true;
        }
        if followed.mark != Some(written.previous) || !followed.ahead.is_empty() {
            return false;
        }
        let revision = written.mark.revision;
        let entry = |change: &Change| {
            let record = |value: &Bytes| Record { value: value.clone(), revision };
            (change.key.clone(), change.value.as_ref().map(record))
        };
        let entries = changes.iter().map(entry).collect();
        self.advance(&mut followed, entries, written.mark).await;
        *self.contact.lock() = Contact { seen: Some(Instant::now()), failure: None };
        true
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
            let begun = Instant::now();
            let looked = self.look().await;
            self.note(begun, &looked);
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

    /// Notes the outcome of a look that began at `begun`.
    fn note(&self, begun: Instant, looked: &Result<(), RegistryError>) {
        let mut contact = self.contact.lock();
        match looked {
            Ok(()) => *contact = Contact { seen: contact.seen.max(Some(begun)), failure: None },
            Err(error) => contact.failure = Some(error.to_string()),
        }
    }

    /// Brings the mirror to what the registry is now; if the log does not reach back even to what a
    /// scan found, to that.
    async fn look(&self) -> Result<(), RegistryError> {
        let mut scans = 0;
        loop {
            let from = self.followed.lock().await.mark;
            let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
            let delta = match from {
                Some(from) => self.registry.since(from).await?,
                None => Delta::TooOld,
            };
            match delta {
                Delta::TooOld if scans == MAX_SCANS => return Ok(()),
                Delta::TooOld => {
                    self.scan(look, scans == 0).await?;
                    scans += 1;
                }
                Delta::Changes { mark, entries } => {
                    if self.follow(look, from, mark, entries).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Applies the changes from one mark to another. True: there are no more.
    async fn follow(
        &self,
        look: u64,
        from: Option<Mark>,
        mark: Mark,
        entries: Vec<Update>,
    ) -> bool {
        let mut followed = self.followed.lock().await;
        let newest = from == Some(mark);
        // Otherwise an own write was faster, and these changes are old in part.
        let untouched = followed.mark == from;
        if untouched && !newest {
            self.advance(&mut followed, entries, mark).await;
        }
        if untouched && followed.has_lost(newest, mark.revision) {
            followed.mark = None;
            return false;
        }
        self.progress.send_modify(|progress| progress.look = look);
        untouched && newest
    }

    /// Applies every record to the mirror, and takes out what is gone. With `careful`, older
    /// changes will not replace what it met.
    async fn scan(&self, look: u64, careful: bool) -> Result<(), RegistryError> {
        let again = {
            let mut followed = self.followed.lock().await;
            followed.mark = None;
            followed.ahead.clear();
            self.progress.send_modify(|progress| (progress.revision, progress.records) = (0, 0));
            std::mem::replace(&mut followed.scanned, true)
        };
        let (mut records, mut said) = (0, 0);
        let mut keys = Keys::default();
        let mut ahead: HashMap<Bytes, u64> = HashMap::new();
        let mark = self.registry.newest().await?;
        let scan = self.registry.scan(|entries| {
            for (key, record) in &entries {
                if again {
                    keys.insert(key);
                }
                if let Some(record) = record
                    && careful
                    && record.revision > mark.revision
                {
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
        scan.await?;
        if said > 0 {
            tracing::info!(records, revision = mark.revision, "the registry is read");
        }
        let mut followed = self.followed.lock().await;
        if again {
            self.mirror.retain(&|key| keys.contains(key));
        }
        self.settle(mark.revision).await;
        followed.ahead = ahead;
        followed.mark = Some(mark);
        self.progress.send_modify(|progress| {
            progress.revision = mark.revision;
            progress.look = look;
            progress.synced = true;
        });
        Ok(())
    }

    async fn settle(&self, revision: u64) {
        let _settling = Settling::new(&self.progress);
        self.mirror.settle(revision).await;
    }

    /// Applies the changes that lead to `mark` from the one before.
    async fn advance(&self, followed: &mut Followed, mut entries: Vec<Update>, mark: Mark) {
        if !followed.ahead.is_empty() {
            entries.retain(|(key, record)| {
                let Some(ahead) = followed.ahead.get(key) else { return true };
                let here = record.as_ref().is_some_and(|record| record.revision >= *ahead);
                if here {
                    followed.ahead.remove(key);
                }
                here
            });
        }
        self.mirror.apply(entries);
        self.settle(mark.revision).await;
        followed.mark = Some(mark);
        self.progress.send_modify(|progress| progress.revision = mark.revision);
    }
}
