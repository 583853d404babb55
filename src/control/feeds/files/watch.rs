//! A watch on a policy file or directory: reports that its contents have changed and settled.
//!
//! It does not keep what it reads. Contents are compared by hash, so a touched file, or one that is
//! written again with the same text, is no change.
//!
//! Directories are watched rather than files: editors rename over a file, and Kubernetes swaps the
//! `..data` link beside it. The parent of the path is watched too, as the path itself may be
//! replaced. Events may be lost or unavailable (network file systems, watch limits), so the
//! metadata of the files is polled every half second as well: a change is noticed within a second.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};

use crate::policy::Listing;

/// The silence after which contents count as settled.
const QUIET: Duration = Duration::from_millis(100);

/// The longest wait for that.
const PATIENCE: Duration = Duration::from_millis(400);

/// The interval of polls, which find changes without an event.
const POLL: Duration = Duration::from_millis(500);

/// Watches a policy file or directory.
pub(super) struct Watcher {
    path: PathBuf,
    /// Every file counts, not only those with the endings of YAML.
    every: bool,
    /// The contents when they were last compared.
    seen: Snapshot,
    /// Something may have changed since then. Outlives a dropped [`Watcher::changed`].
    pending: bool,
    touched: Arc<Notify>,
    poll: Interval,
    armed: Armed,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.armed.watch.is_some();
        let mut f = f.debug_struct("Watcher");
        f.field("path", &self.path).field("events", &events).finish_non_exhaustive()
    }
}

impl Watcher {
    /// Begins to watch `path`, which may appear later.
    ///
    /// Reads the files: blocks. Needs a tokio runtime with time.
    pub(super) fn start(path: &Path, every: bool) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let touched = Arc::new(Notify::new());
        let armed = Armed::new(&path, Look::at(&path, every), &touched);
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let seen = Snapshot::take(&path, every);
        Self { path, every, seen, pending: false, touched, poll, armed }
    }

    /// Waits until the contents differ from those at the start or at the last return, and have
    /// settled.
    ///
    /// # Cancel safety
    /// Dropped, it forgets nothing: a change is reported by the next call.
    pub(super) async fn changed(&mut self) {
        loop {
            if !self.pending {
                self.wait().await;
                continue;
            }
            settle(&self.touched).await;
            let (path, every) = (self.path.clone(), self.every);
            // The task fails only when the runtime ends, and this with it.
            let Ok(now) = spawn_blocking(move || Snapshot::take(&path, every)).await else {
                continue;
            };
            // Contents may have changed between the look and the new watch: look again.
            self.pending = now.look.directories != self.armed.directories;
            if self.pending {
                self.armed = Armed::new(&self.path, now.look.clone(), &self.touched);
            }
            let changed = now.digest != self.seen.digest;
            self.seen = now;
            if changed {
                return;
            }
        }
    }

    /// Waits for a sign of change.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.touched.notified() => self.pending = true,
            _ = self.poll.tick() => {
                let (path, every) = (self.path.clone(), self.every);
                if let Ok(look) = spawn_blocking(move || Look::at(&path, every)).await {
                    self.pending = look != self.seen.look;
                }
            }
        }
    }
}

/// Waits until nothing has been touched for a while, or patience ends.
async fn settle(touched: &Notify) {
    let end = Instant::now() + PATIENCE;
    while timeout_at(end.min(Instant::now() + QUIET), touched.notified()).await.is_ok() {}
}

/// The directories under watch, as they were then; the watch ends when this is dropped.
struct Armed {
    directories: Vec<Stamp>,
    /// None when events are unavailable.
    watch: Option<RecommendedWatcher>,
}

impl Armed {
    fn new(path: &Path, look: Look, touched: &Arc<Notify>) -> Self {
        let watch = watch(path, &look, touched).inspect_err(|error| {
            let path = path.display();
            tracing::warn!(%error, %path, "no file events for policies, polling instead");
        });
        Self { directories: look.directories, watch: watch.ok() }
    }
}

fn watch(path: &Path, look: &Look, touched: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let (root, touched) = (path.to_owned(), Arc::clone(touched));
    // Of a directory's parent only the directory matters; beside a file, its links may be swapped.
    let is_directory = look.directories.iter().any(|stamp| stamp.path == path);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let matters = event.as_ref().map_or(true, |event| {
            let within = || event.paths.iter().any(|path| path.starts_with(&root));
            is_change(event.kind) && (!is_directory || event.paths.is_empty() || within())
        });
        if matters {
            touched.notify_one();
        }
    })?;
    for stamp in &look.directories {
        watcher.watch(&stamp.path, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Reading a file is no change; otherwise our own reading would never end.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Contents by their hash, and what the file system says of them.
struct Snapshot {
    look: Look,
    digest: [u8; 32],
}

impl Snapshot {
    fn take(path: &Path, every: bool) -> Self {
        // Looked at before it is read: what changes in between looks different the next time.
        let look = Look::at(path, every);
        let (sources, faults) = Listing::of(path, every).read();
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        for source in &sources {
            add(source.name.as_bytes());
            add(&source.text);
        }
        for fault in &faults {
            add(fault.to_string().as_bytes());
        }
        Self { look, digest: hash.finalize().into() }
    }
}

/// The metadata of everything below the path, without contents.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Look {
    /// The parent of the path, the path if it is a directory, and those below it.
    directories: Vec<Stamp>,
    files: Vec<Stamp>,
}

/// A file or directory as it is now; what does not exist is zero.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Stamp {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Size, time of modification and of change, each in seconds and nanoseconds; of files only.
    content: Option<(u64, [i64; 4])>,
}

impl Stamp {
    fn of(path: &Path, file: bool) -> Self {
        // Follows links: what a link leads to is what counts.
        let meta = fs::metadata(path).ok();
        let times =
            |meta: &Metadata| [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Self {
            path: path.to_owned(),
            identity: meta.as_ref().map_or((0, 0), |meta| (meta.dev(), meta.ino())),
            content: meta.filter(|_| file).map(|meta| (meta.len(), times(&meta))),
        }
    }
}

impl Look {
    fn at(path: &Path, every: bool) -> Self {
        let listing = Listing::of(path, every);
        let directories = path.parent().into_iter().chain(listing.directories.iter().map(|p| &**p));
        Self {
            directories: directories.map(|path| Stamp::of(path, false)).collect(),
            files: listing.files.iter().map(|path| Stamp::of(path, true)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
