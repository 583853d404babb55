//! The registry's connection: made when it is first needed, and again after it is lost.
//!
//! It repeats no command that may have been executed. In a Redis Cluster it follows a redirection,
//! and waits while the slot is moved: both answers prove that the node has executed nothing. All
//! its work is on one runtime.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, ScriptInvocation, Value};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::control::registry::RegistryError;
use crate::redis::Connector;
use crate::redis::backoff::Backoff;
use crate::redis::line::Line;

/// A connection that comes back.
pub(in crate::control) struct Link {
    connector: Connector,
    home: Handle,
    patience: Duration,
    attempts: Mutex<Attempts>,
}

struct Attempts {
    open: Option<Open>,
    backoff: Backoff,
    /// The reason why the last attempt failed, and the time of the next.
    failed: Option<(String, Instant)>,
}

struct Open {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    line: Arc<Line>,
    since: Instant,
    /// The server answers: other calls on the connection get their answers, and it ends with the
    /// last of them.
    answers: bool,
}

/// The most redirections of a command.
const MAX_REDIRECTS: usize = 2;

/// The pause between two attempts while the slot is moved: its keys are moved in milliseconds.
const MOVING_PAUSE: Duration = Duration::from_millis(10);

/// The way in which a command failed.
enum Lost {
    /// Another node of the cluster has the slot. The server has executed nothing.
    Moved(String),
    /// The slot is on its way to another node, which has keys of it already. The server has
    /// executed nothing.
    Moving(String),
    /// The server refused it.
    Refused(RegistryError),
    /// It was sent, and no answer came.
    Unanswered(String),
}

impl Lost {
    fn of_query(self) -> RegistryError {
        match self {
            Self::Refused(error) => error,
            Self::Moved(reason) | Self::Moving(reason) | Self::Unanswered(reason) => {
                RegistryError::Unavailable(reason)
            }
        }
    }

    fn of_write(self) -> RegistryError {
        match self {
            Self::Refused(error) => error,
            Self::Moved(reason) | Self::Moving(reason) => RegistryError::Unavailable(reason),
            Self::Unanswered(reason) => RegistryError::Unknown(reason),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.answers {
            self.driver.abort();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("redis", &self.connector.to_string()).finish_non_exhaustive()
    }
}

impl Link {
    /// `patience`: how long an answer may take.
    pub(in crate::control) fn new(connector: Connector, home: Handle, patience: Duration) -> Self {
        let attempts = Mutex::new(Attempts { open: None, backoff: Backoff::new(), failed: None });
        Self { connector, home, patience, attempts }
    }

    pub(in crate::control) async fn query(&self, command: &Cmd) -> Result<Value, RegistryError> {
        self.settled(|| self.query_once(command)).await.map_err(Lost::of_query)
    }

    async fn query_once(&self, command: &Cmd) -> Result<Value, Lost> {
        let (mut connection, since) = self.connection().await.map_err(Lost::Refused)?;
        self.answer(command.query_async(&mut connection), since).await
    }

    pub(super) async fn invoke(&self, call: &ScriptInvocation<'_>) -> Result<Value, RegistryError> {
        self.settled(|| self.invoke_once(call)).await.map_err(Lost::of_write)
    }

    async fn invoke_once(&self, call: &ScriptInvocation<'_>) -> Result<Value, Lost> {
        let (mut connection, since) = self.connection().await.map_err(Lost::Refused)?;
        self.answer(call.invoke_async(&mut connection), since).await
    }

    /// The answer of the node that has the slot, as far as it is settled which has it.
    async fn settled<A>(&self, attempt: impl Fn() -> A) -> Result<Value, Lost>
    where
        A: Future<Output = Result<Value, Lost>>,
    {
        let (mut redirects, late) = (0, Instant::now() + self.patience);
        loop {
            match attempt().await {
                Err(Lost::Moved(_)) if redirects < MAX_REDIRECTS => redirects += 1,
                Err(Lost::Moving(_)) if Instant::now() < late => {
                    tokio::time::sleep(MOVING_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn answer(
        &self,
        answer: impl Future<Output = Result<Value, RedisError>>,
        since: Instant,
    ) -> Result<Value, Lost> {
        let lost = match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => {
                return Err(Lost::Refused(RegistryError::Corrupt(error.to_string())));
            }
            Ok(Err(error)) if error.code() == Some("MOVED") => {
                self.connector.note_moved(&error);
                Lost::Moved(error.to_string())
            }
            Ok(Err(error)) if matches!(error.code(), Some("ASK" | "TRYAGAIN")) => {
                // The connection leads to the slot until it has moved.
                return Err(Lost::Moving(error.to_string()));
            }
            // An error of the server, such as READONLY or OOM.
            Ok(Err(error)) if error.code().is_some() => {
                Lost::Refused(RegistryError::Unavailable(error.to_string()))
            }
            Ok(Err(error)) => Lost::Unanswered(error.to_string()),
            Err(_) => Lost::Unanswered(format!("no answer within {:?}", self.patience)),
        };
        // Also when the server refused: it may have become a replica, and its name lead elsewhere
        // now.
        let mut attempts = self.attempts.lock().await;
        if let Some(mut open) = attempts.open.take_if(|open| open.since == since) {
            open.answers = !matches!(lost, Lost::Unanswered(_));
            if let Lost::Refused(RegistryError::Unavailable(error)) = &lost {
                open.line.note_refusal(error);
            }
        }
        Err(lost)
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, Instant), RegistryError> {
        let mut attempts = self.attempts.lock().await;
        if let Some(open) = attempts.open.as_ref().filter(|open| !open.driver.is_finished()) {
            self.log_in_again(open).await;
            return Ok((open.connection.clone(), open.since));
        }
        if let Some((reason, retry)) = &attempts.failed
            && *retry > Instant::now()
        {
            return Err(RegistryError::Unavailable(reason.clone()));
        }
        match self.connect().await {
            Ok(open) => {
                attempts.failed = None;
                attempts.backoff.reset();
                let open = attempts.open.insert(open);
                Ok((open.connection.clone(), open.since))
            }
            Err(reason) => {
                let retry = Instant::now() + attempts.backoff.wait();
                attempts.failed = Some((reason.clone(), retry));
                Err(RegistryError::Unavailable(reason))
            }
        }
    }

    /// Sends user and password again if they have changed. The connection keeps its user when Redis
    /// refuses the new one.
    async fn log_in_again(&self, open: &Open) {
        let command = open.line.new_login().and_then(|login| login.command());
        let Some(command) = command else { return };
        let mut connection = open.connection.clone();
        let answer = command.query_async::<Value>(&mut connection);
        drop(tokio::time::timeout(self.patience, answer).await);
    }

    /// On its home runtime: a socket belongs to the runtime it was opened on, which must not be one
    /// that ends first.
    async fn connect(&self) -> Result<Open, String> {
        let (connector, home) = (self.connector.clone(), self.home.clone());
        let attempt = self.home.spawn(async move {
            let link = connector.connect().await?;
            let driver = home.spawn(link.driver);
            let (connection, line) = (link.connection, link.line);
            Ok(Open { connection, driver, line, since: Instant::now(), answers: false })
        });
        attempt.await.unwrap_or_else(|_| Err("the runtime has ended".to_owned()))
    }
}
