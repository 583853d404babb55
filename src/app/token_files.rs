//! The files that hold the tokens of operators, watched for changes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::edge::admin::AdminSettings;

/// The interval at which the files are read. It sees every way of replacing files, also that of
/// Kubernetes, which swaps a directory.
const REREAD_EVERY: Duration = Duration::from_secs(5);

/// The files, and what they held.
#[derive(Debug)]
pub(super) struct TokenFiles {
    paths: Vec<PathBuf>,
    /// Hashes: the tokens themselves are not kept.
    held: Vec<Option<[u8; 32]>>,
}

impl TokenFiles {
    /// The files of `settings` as they are now. Reads them: blocks.
    pub(super) fn new(settings: &AdminSettings) -> Self {
        let paths = [&settings.token_file, &settings.tokens_file];
        let paths: Vec<PathBuf> = paths.into_iter().flatten().cloned().collect();
        let held = digests(&paths);
        Self { paths, held }
    }

    /// Waits until a file has changed; for ever without files.
    ///
    /// # Cancel safety
    /// A dropped call misses no change.
    pub(super) async fn changed(&mut self) {
        if self.paths.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(REREAD_EVERY).await;
            let paths = self.paths.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || digests(&paths)).await else {
                continue;
            };
            // A file that is missing is on its way to be replaced.
            if now != self.held && now.iter().all(Option::is_some) {
                self.held = now;
                return;
            }
        }
    }
}

fn digests(paths: &[PathBuf]) -> Vec<Option<[u8; 32]>> {
    paths.iter().map(|path| fs::read(path).ok().map(|text| Sha256::digest(text).into())).collect()
}
