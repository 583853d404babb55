//! User, password and database of a connection.

use std::fmt;

use redis::{Cmd, RedisConnectionInfo};

use super::resp;

/// User, password and database. `Debug` shows the database only.
#[derive(Clone, Default, Eq, PartialEq)]
pub(crate) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Login {
    /// Writes the command AUTH. Returns false if there is no password.
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> bool {
        let words = self.words();
        let bytes = words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>();
        if !words.is_empty() {
            resp::put_command(out, &bytes);
        }
        !words.is_empty()
    }

    /// The command AUTH; `None` if there is no password.
    pub(crate) fn command(&self) -> Option<Cmd> {
        let words = self.words();
        let (name, rest) = words.split_first()?;
        let mut command = redis::cmd(name);
        command.arg(rest);
        Some(command)
    }

    fn words(&self) -> Vec<&str> {
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => vec!["AUTH", user, password],
            (None, Some(password)) => vec!["AUTH", password],
            (_, None) => vec![],
        }
    }

    /// The login as the `redis` crate takes it.
    pub(super) fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_db(self.database);
        info = info.set_skip_set_lib_name();
        if let Some(user) = &self.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }
}
