//! The feed of policy files: read again when they change, and on request.
//!
//! * `watch`: notices that the contents have changed and settled.

mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use self::watch::Watcher;
use super::Feed;
use crate::control::layered::Origin;
use crate::policy::Files;

/// A policy file or directory.
#[derive(Debug)]
pub struct FileFeed {
    path: PathBuf,
    lenient: bool,
    watcher: Watcher,
    requested: Arc<Notify>,
    /// The files have changed, or were requested, since they were last returned.
    due: bool,
}

/// Asks a feed to read its files again.
#[derive(Clone, Debug)]
pub struct Reread(Arc<Notify>);

impl Reread {
    /// Asks for it. Several requests before the feed reads are one.
    pub fn request(&self) {
        self.0.notify_one();
    }
}

impl FileFeed {
    /// Begins to watch `path`, which may appear later, and whose files are read as
    /// [`Options::lenient`](crate::policy::Options::lenient) says.
    ///
    /// Start it before the first [`Self::read`], so that no change falls between the two. Reads the
    /// files: blocks. Needs a tokio runtime with time.
    pub fn start(path: &Path, lenient: bool) -> Self {
        Self {
            path: path.to_owned(),
            lenient,
            watcher: Watcher::start(path, lenient),
            requested: Arc::default(),
            due: false,
        }
    }

    /// Reads the files as they are now. Blocks.
    pub fn read(&self) -> Files {
        Files::read(std::slice::from_ref(&self.path), self.lenient)
    }

    /// A way to request that they are read again.
    pub fn reread(&self) -> Reread {
        Reread(Arc::clone(&self.requested))
    }
}

impl Feed for FileFeed {
    const ORIGIN: Origin = Origin::Files;

    async fn next(&mut self) -> Files {
        loop {
            if !self.due {
                tokio::select! {
                    () = self.watcher.changed() => {}
                    () = self.requested.notified() => {}
                }
                self.due = true;
            }
            let (path, lenient) = (self.path.clone(), self.lenient);
            // The task fails only when the runtime ends, and this with it.
            if let Ok(files) = spawn_blocking(move || Files::read(&[path], lenient)).await {
                self.due = false;
                return files;
            }
        }
    }
}
