//! A value made of PEM files, renewed when the files change.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{Files, Paths, TlsFault};

/// Makes something from files.
type Build<T> = Box<dyn Fn(&Files) -> Result<T, TlsFault> + Send + Sync>;

/// Something made from files. Files that do not fit leave the previous in use.
pub(crate) struct Reloaded<T> {
    /// Whose files they are, for logs, such as `for Redis`.
    whose: &'static str,
    paths: Paths,
    build: Build<T>,
    current: ArcSwap<T>,
    last: Mutex<Last>,
}

struct Last {
    /// The files as they were when they last fitted.
    files: Files,
    /// The faults that were logged since then.
    logged: BTreeSet<String>,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files and makes the first. Blocks for that.
    ///
    /// # Errors
    /// Fails with the setting and the reason if they cannot be used.
    pub(crate) fn new(
        whose: &'static str,
        paths: Paths,
        build: impl Fn(&Files) -> Result<T, TlsFault> + Send + Sync + 'static,
    ) -> Result<Self, TlsFault> {
        let files = Files::read(&paths)?;
        let current = ArcSwap::from_pointee(build(&files)?);
        let last = Mutex::new(Last { files, logged: BTreeSet::new() });
        Ok(Self { whose, paths, build: Box::new(build), current, last })
    }

    /// The one in use.
    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again. Returns true if they have changed and fit: new connections use them.
    pub(crate) async fn reload(&self) -> bool {
        let paths = self.paths.clone();
        let read = tokio::task::spawn_blocking(move || Files::read(&paths)).await;
        let Ok(read) = read else { return false };
        let mut last = self.last.lock();
        let fault = match read {
            Ok(files) if files == last.files => return false,
            Ok(files) => match (self.build)(&files) {
                Ok(made) => {
                    let whose = self.whose;
                    tracing::info!("the TLS files {whose} have changed; new connections use them");
                    self.current.store(Arc::new(made));
                    *last = Last { files, logged: BTreeSet::new() };
                    return true;
                }
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        let fault = fault.to_string();
        if last.logged.insert(fault.clone()) {
            tracing::warn!(
                fault,
                "changed TLS files {} cannot be used; connections use the previous ones",
                self.whose
            );
        }
        false
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}
