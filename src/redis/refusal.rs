//! Errors that Redis answers to a connection that works: permissions that are missing, and servers
//! that are no primary any more.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Maximum of different texts that are logged until the next inspection.
const MAX_LOGGED: usize = 16;

/// The errors of all connections of a connector.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    logged: Mutex<BTreeSet<String>>,
    /// Notified when the server seems to be no primary.
    pub(super) demoted: Notify,
}

impl Refusals {
    /// Notes an error reply. Logs a missing permission once.
    pub(super) fn note(&self, error: &str) {
        match error.split(' ').next().unwrap_or_default() {
            "READONLY" | "MASTERDOWN" | "NOREPLICAS" => self.demoted.notify_one(),
            "NOPERM" | "NOAUTH" | "WRONGPASS" => self.log(error),
            // The forms of NOPERM for a command that a script calls, of Redis 6, 7.0 and 7.2.
            _ if error.contains("can't run this command")
                || error.contains("ACL failure in script") =>
            {
                self.log(error);
            }
            _ => {}
        }
    }

    /// Logs the texts again that come again.
    pub(super) fn forget(&self) {
        self.logged.lock().clear();
    }

    fn log(&self, error: &str) {
        let mut logged = self.logged.lock();
        if logged.len() < MAX_LOGGED && logged.insert(error.to_owned()) {
            tracing::warn!(
                error,
                "Redis refuses commands of tollgate; grant its user what docs/redis.md lists \
                 (ACL SETUSER)"
            );
        }
    }
}
