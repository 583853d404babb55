//! The log-in on a new connection: AUTH, SELECT, CLIENT SETNAME, SCRIPT LOAD.
//!
//! All commands are pipelined; Redis answers in order. RESP2 only, so HELLO is not needed.

use std::io::ErrorKind;

use super::login::Login;
use super::resp::{self, Message};
use super::role;
use super::wire::Wire;

/// The name that `CLIENT LIST` shows.
const CLIENT_NAME: &[u8] = b"tollgate";

/// The beginning of the reason when Redis refuses user or password.
pub(super) const NO_LOGIN: &str = "authentication failed";

/// A step of the log-in, used in error texts.
#[derive(Clone, Copy)]
enum Step {
    Authenticate,
    Select,
    Name,
    Load,
}

/// Logs in on `wire` and loads `script`.
///
/// # Errors
/// Fails with a reason for the operator, which never contains the password.
pub(super) async fn log_in(login: &Login, wire: &mut Wire, script: &str) -> Result<(), String> {
    let mut answered = Ok(());
    for step in send(login, &mut wire.output, script) {
        let reply = next(wire).await?;
        // Reports the first failure, because it causes the later ones. Reads all replies, because
        // they are on the wire.
        answered = answered.and_then(|()| step.check(reply));
    }
    answered
}

/// Checks that the server is a primary. A replica would decide by stale state, without an error.
///
/// # Errors
/// Fails with a reason for the operator.
pub(super) async fn check_role(wire: &mut Wire) -> Result<(), String> {
    resp::put_command(&mut wire.output, &[b"ROLE"]);
    loop {
        wire.exchange().await.map_err(|error| error.to_string())?;
        if let Some(value) = wire.replies.take_all(|bytes| redis::parse_redis_value(bytes).ok()) {
            return role::check(&value);
        }
    }
}

/// Writes the commands, and returns the steps in the order of their replies.
fn send(login: &Login, out: &mut Vec<u8>, script: &str) -> Vec<Step> {
    let mut steps = Vec::with_capacity(4);
    if login.put(out) {
        steps.push(Step::Authenticate);
    }
    let mut put = |step, strings: &[&[u8]]| {
        resp::put_command(out, strings);
        steps.push(step);
    };
    if login.database != 0 {
        put(Step::Select, &[b"SELECT", login.database.to_string().as_bytes()]);
    }
    put(Step::Name, &[b"CLIENT", b"SETNAME", CLIENT_NAME]);
    put(Step::Load, &[b"SCRIPT", b"LOAD", script.as_bytes()]);
    steps
}

impl Step {
    fn check(self, reply: Message) -> Result<(), String> {
        match (self, reply) {
            (Self::Authenticate | Self::Select | Self::Load, Message::Text(_))
            // An ACL may deny CLIENT to the user. The name is a convenience, so ignore the error.
            | (Self::Name, Message::Text(_) | Message::Error(_)) => Ok(()),
            (Self::Authenticate, Message::Error(text)) => Err(format!("{NO_LOGIN}: {text}")),
            (Self::Select, Message::Error(text)) => {
                Err(format!("the database cannot be selected: {text}"))
            }
            (Self::Load, Message::Error(text)) => {
                Err(format!("the script cannot be loaded: {text}{}", hint(&text)))
            }
            (_, reply) => Err(format!("Redis answered a log-in with {reply:?}")),
        }
    }
}

/// The next step after Redis has refused a script.
fn hint(text: &str) -> &'static str {
    if text.starts_with("NOAUTH") {
        "; set redis.password or redis.password_file"
    } else if text.starts_with("NOPERM") {
        "; grant the user the commands that docs/redis.md lists"
    } else if text.contains("unknown command") {
        "; tollgate needs scripts (EVAL, EVALSHA, SCRIPT LOAD): connect to Redis itself, not to a \
         proxy"
    } else {
        ""
    }
}

async fn next(wire: &mut Wire) -> Result<Message, String> {
    loop {
        match wire.replies.decode() {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => {}
            // The beginning of a TLS alert.
            Err(error) if error.to_string().contains(r"\x15\x03") => {
                return Err("the server speaks TLS on this port; write rediss://".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
        wire.exchange().await.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if !wire.is_tls => {
                format!("{error} during the log-in; if it serves TLS on this port, write rediss://")
            }
            _ => error.to_string(),
        })?;
    }
}
