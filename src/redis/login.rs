//! The log-in on a new connection: AUTH, SELECT, CLIENT SETNAME, SCRIPT LOAD.
//!
//! All commands are pipelined; Redis answers in order. RESP2 only, so HELLO is not needed.

use std::fmt;

use redis::RedisConnectionInfo;

use super::resp::{self, Message};
use super::wire::Wire;

/// The name that `CLIENT LIST` shows.
const CLIENT_NAME: &[u8] = b"tollgate";

/// User, password and database. `Debug` shows the database only.
#[derive(Clone)]
pub(crate) struct Login {
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("database", &self.database).finish_non_exhaustive()
    }
}

/// A step of the log-in, used in error texts.
#[derive(Clone, Copy)]
enum Step {
    Authenticate,
    Select,
    Name,
    Load,
}

impl Login {
    /// The log-in from a parsed URL.
    pub(crate) fn of_url(info: &RedisConnectionInfo) -> Self {
        Self {
            user: info.username().map(str::to_owned),
            password: info.password().map(str::to_owned),
            database: info.db(),
        }
    }

    /// Logs in on `wire` and loads `script`.
    ///
    /// # Errors
    /// Fails with a reason for the operator, which never contains the password.
    pub(crate) async fn log_in(&self, wire: &mut Wire, script: &str) -> Result<(), String> {
        let mut answered = Ok(());
        for step in self.send(&mut wire.output, script) {
            let reply = next(wire).await?;
            // Reports the first failure, because it causes the later ones. Reads all replies,
            // because they are on the wire.
            answered = answered.and_then(|()| step.check(reply));
        }
        answered
    }

    /// Writes the commands, and returns the steps in the order of their replies.
    fn send(&self, out: &mut Vec<u8>, script: &str) -> Vec<Step> {
        let mut steps = Vec::with_capacity(4);
        let mut put = |step, strings: &[&[u8]]| {
            resp::put_command(out, strings);
            steps.push(step);
        };
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                put(Step::Authenticate, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
            }
            (None, Some(password)) => put(Step::Authenticate, &[b"AUTH", password.as_bytes()]),
            (_, None) => {}
        }
        if self.database != 0 {
            put(Step::Select, &[b"SELECT", self.database.to_string().as_bytes()]);
        }
        put(Step::Name, &[b"CLIENT", b"SETNAME", CLIENT_NAME]);
        put(Step::Load, &[b"SCRIPT", b"LOAD", script.as_bytes()]);
        steps
    }
}

impl Step {
    fn check(self, reply: Message) -> Result<(), String> {
        match (self, reply) {
            (Self::Authenticate | Self::Select | Self::Load, Message::Text(_))
            // An ACL may deny CLIENT to the user. The name is a convenience, so ignore the error.
            | (Self::Name, Message::Text(_) | Message::Error(_)) => Ok(()),
            (Self::Authenticate, Message::Error(text)) => {
                Err(format!("authentication failed: {text}"))
            }
            (Self::Select, Message::Error(text)) => {
                Err(format!("the database cannot be selected: {text}"))
            }
            (Self::Load, Message::Error(text)) => {
                Err(format!("the script cannot be loaded: {text}"))
            }
            (_, reply) => Err(format!("Redis answered a log-in with {reply:?}")),
        }
    }
}

async fn next(wire: &mut Wire) -> Result<Message, String> {
    loop {
        if let Some(message) = wire.replies.next().map_err(|error| error.to_string())? {
            return Ok(message);
        }
        wire.exchange().await.map_err(|error| error.to_string())?;
    }
}
