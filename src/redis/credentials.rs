//! User and password of all connections, read again from their files when these change.
//!
//! Changed credentials are in use once Redis has accepted them. Until then, connections use the
//! previous ones, so it does not matter whether Redis or the file changes first.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::handshake::NO_LOGIN;
use super::login::Login;

/// The credentials in use, and their files.
pub(super) struct Credentials {
    username_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    current: ArcSwap<Login>,
    /// The content of the files when Redis refused it last.
    refused: ArcSwapOption<Login>,
    /// The faults that were logged since the last change.
    logged: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("files", &self.files()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials that are `login` until a file holds others.
    pub(super) fn new(
        login: Login,
        username_file: Option<PathBuf>,
        password_file: Option<PathBuf>,
    ) -> Self {
        Self {
            username_file,
            password_file,
            current: ArcSwap::from_pointee(login),
            refused: ArcSwapOption::empty(),
            logged: Mutex::default(),
        }
    }

    /// True if they can change.
    pub(super) const fn have_files(&self) -> bool {
        self.username_file.is_some() || self.password_file.is_some()
    }

    /// The credentials for a new connection: those of the files, unless Redis has refused them.
    pub(super) async fn choose(&self) -> Arc<Login> {
        match self.changed().await {
            Some(changed) if self.refused.load().as_deref() != Some(&*changed) => changed,
            _ => self.current.load_full(),
        }
    }

    /// The credentials of the files, if they differ from those in use.
    pub(super) async fn changed(&self) -> Option<Arc<Login>> {
        if !self.have_files() {
            return None;
        }
        let current = self.current.load_full();
        let files = (self.username_file.clone(), self.password_file.clone());
        let read = {
            let current = Arc::clone(&current);
            tokio::task::spawn_blocking(move || -> Result<Login, String> {
                let mut login = (*current).clone();
                if let Some(path) = files.0 {
                    login.user = Some(read(&path)?);
                }
                if let Some(path) = files.1 {
                    login.password = Some(read(&path)?);
                }
                Ok(login)
            })
            .await
        };
        match read.ok()? {
            Ok(login) => (login != *current).then(|| Arc::new(login)),
            Err(fault) => {
                self.warn(&fault, "user or password for Redis stay as they were");
                None
            }
        }
    }

    /// Notes whether Redis has accepted `login`. Returns true if it replaces the one in use.
    pub(super) fn settle(&self, login: &Arc<Login>, outcome: Result<(), &str>) -> bool {
        let is_new = **login != **self.current.load();
        match outcome {
            Ok(()) if is_new => {
                self.current.store(Arc::clone(login));
                self.refused.store(None);
                self.logged.lock().clear();
                true
            }
            Err(reason) if is_new && reason.starts_with(NO_LOGIN) => {
                self.refused.store(Some(Arc::clone(login)));
                let fault = format!("Redis refuses what {} now holds: {reason}", self.files());
                self.warn(&fault, "the previous user and password stay in use until it accepts it");
                false
            }
            _ => false,
        }
    }

    /// The files, as log lines name them.
    pub(super) fn files(&self) -> String {
        let files = [&self.username_file, &self.password_file];
        let files = files.into_iter().flatten().map(|path| path.display().to_string());
        files.collect::<Vec<_>>().join(" and ")
    }

    fn warn(&self, fault: &str, effect: &str) {
        if self.logged.lock().insert(fault.to_owned()) {
            tracing::warn!(fault, "{effect}");
        }
    }
}

/// The contents of a file without the line end that editors add.
fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "authentication failed: WRONGPASS";

    fn login(password: &str) -> Login {
        Login { password: Some(password.to_owned()), ..Login::default() }
    }

    #[tokio::test]
    async fn changed_file_is_used_once_redis_accepts_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("old\n");
        let credentials = Credentials::new(login("old"), None, Some(path.clone()));
        assert_eq!(credentials.changed().await, None);
        write("new\n");
        let new = credentials.choose().await;
        assert_eq!(*new, login("new"));
        assert!(!credentials.settle(&new, Err("connection refused")));
        assert_eq!(*credentials.choose().await, login("new"), "that is no word on the password");
        assert!(!credentials.settle(&new, Err(REFUSED)));
        assert_eq!(*credentials.choose().await, login("old"));
        assert_eq!(credentials.changed().await.as_deref(), Some(&login("new")), "to try again");
        assert!(credentials.settle(&new, Ok(())));
        assert_eq!(*credentials.choose().await, login("new"));
        for broken in ["", "\n"] {
            write(broken);
            assert_eq!(*credentials.choose().await, login("new"));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(*credentials.choose().await, login("new"));
    }
}
