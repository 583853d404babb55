//! One connection to Redis: locate the primary, open a socket, log in.
//!
//! The store uses its own RESP code, because it is on the path of every decision. The registry uses
//! the connections of the `redis` crate. This module does not reconnect or retry; the owner of a
//! connection does. Passwords are never shown.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SetupError;
use super::credentials::Credentials;
use super::handshake;
use super::line::{Line, Lines, Renewal};
use super::locate::Locate;
use super::login::Login;
use super::multiplex::{Driver, multiplex, reason};
use super::open::open;
use super::refusal::Refusals;
use super::role;
use super::socket::Socket;
use super::tls::Tls;
use super::wire::Wire;

/// An open connection of the `redis` crate.
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) driver: Driver,
    /// Says when it must log in again.
    pub(crate) line: Arc<Line>,
}

/// Makes connections to one Redis: its address, TLS and the log-in. Clones share them.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    locate: Locate,
    credentials: Credentials,
    tls: Option<Arc<Tls>>,
    lines: Arc<Lines>,
    refusals: Arc<Refusals>,
    timeout: Duration,
    /// Ends the background tasks with the last clone.
    tasks: DropGuard,
}

/// A connector that does not keep itself alive.
pub(super) struct WeakConnector(Weak<Inner>);

impl WeakConnector {
    /// The connector, while there is a clone of it.
    pub(super) fn upgrade(&self) -> Option<Connector> {
        self.0.upgrade().map(Connector)
    }
}

impl Connector {
    /// A connector whose attempts fail after `timeout`. `lines` and `refusals` are those of
    /// `locate`.
    pub(super) fn new(
        locate: Locate,
        credentials: Credentials,
        tls: Option<Arc<Tls>>,
        (lines, refusals): (Arc<Lines>, Arc<Refusals>),
        timeout: Duration,
    ) -> Self {
        let tasks = CancellationToken::new().drop_guard();
        Self(Arc::new(Inner { locate, credentials, tls, lines, refusals, timeout, tasks }))
    }

    pub(super) fn downgrade(&self) -> WeakConnector {
        WeakConnector(Arc::downgrade(&self.0))
    }

    pub(super) fn locate(&self) -> &Locate {
        &self.0.locate
    }

    /// Checks what the sentinels say about the settings, as far as they answer.
    ///
    /// # Errors
    /// Fails if they do not know the name of the primary.
    pub(crate) async fn check_name(&self) -> Result<(), SetupError> {
        let Some(sentinels) = self.0.locate.sentinels() else { return Ok(()) };
        let setting = "redis.sentinel.master";
        sentinels.check_name().await.map_err(|reason| SetupError::Setting { setting, reason })
    }

    /// The address of the primary as far as it is known.
    pub(crate) fn primary(&self) -> Option<String> {
        self.0.locate.known().map(|address| address.to_string())
    }

    /// The number of times that the primary has moved.
    pub(crate) fn switches(&self) -> u64 {
        self.0.locate.sentinels().map_or(0, |sentinels| sentinels.switches())
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// Cancelled with the last clone.
    pub(super) fn dropped(&self) -> CancellationToken {
        self.0.tasks.token().clone()
    }

    /// True if something about it can change while it is in use.
    pub(super) fn has_files(&self) -> bool {
        self.0.credentials.have_files() || self.0.tls.is_some()
    }

    /// Reads the files of credentials and certificates again. Changed credentials are tried on a
    /// connection of their own; if Redis accepts them, every connection logs in again.
    pub(super) async fn refresh(&self) {
        if let Some(tls) = &self.0.tls {
            tls.reload().await;
        }
        if let Some(login) = self.0.credentials.changed().await {
            // The outcome is noted on the way.
            drop(self.in_time(self.link(&login)).await);
        }
    }

    /// Connects, logs in and loads `script`.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    pub(crate) async fn connect_with(&self, script: &str) -> Result<Wire, String> {
        let attempt = async {
            let login = self.0.credentials.choose().await;
            let (socket, line) = self.open(Renewal::LogIn).await?;
            let mut wire = Wire::new(socket, line, self.0.tls.is_some());
            let logged_in = handshake::log_in(&login, &mut wire, script).await;
            self.settle(&login, logged_in.as_ref().copied());
            logged_in?;
            if self.0.locate.sentinels().is_some() {
                handshake::check_role(&mut wire).await?;
            }
            wire.set_logged_in();
            Ok(wire)
        };
        self.in_time(attempt).await
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    pub(crate) async fn connect(&self) -> Result<Link, String> {
        let login = self.0.credentials.choose().await;
        self.in_time(self.link(&login)).await
    }

    /// Connects, logs in and subscribes to `channel`. The connection ends when user or password
    /// change.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, String> {
        let attempt = async {
            let login = self.0.credentials.choose().await;
            let (socket, _line) = self.open(Renewal::Reconnect).await?;
            let connected =
                PubSub::new(&login.info(), socket).await.map_err(|error| reason(&error));
            self.settle(&login, connected.as_ref().map(|_| ()));
            let mut connection = connected?;
            connection.subscribe(channel).await.map_err(|error| reason(&error))?;
            Ok(connection)
        };
        self.in_time(attempt).await
    }

    async fn link(&self, login: &Arc<Login>) -> Result<Link, String> {
        let (socket, line) = self.open(Renewal::LogIn).await?;
        let linked = multiplex(login, socket).await;
        self.settle(login, linked.as_ref().map(|_| ()));
        let (connection, mut driver) = linked?;
        if self.0.locate.sentinels().is_some() {
            let mut connection = connection.clone();
            let command = redis::cmd("ROLE");
            let reply = tokio::select! {
                reply = command.query_async(&mut connection) => reply.map_err(|error| reason(&error))?,
                () = &mut driver => return Err("Redis closed the connection".to_owned()),
            };
            role::check(&reply)?;
        }
        Ok(Link { connection, driver, line })
    }

    async fn open(&self, renewal: Renewal) -> Result<(Box<dyn Socket>, Arc<Line>), String> {
        let address = self.0.locate.primary().await?;
        let line = self.0.lines.add(address, renewal, Arc::clone(&self.0.refusals));
        // After the line was added: the primary moves before, and is seen here, or it moves later,
        // and ends the line.
        if !self.0.locate.is_current(line.address()) {
            return Err("the primary has moved meanwhile".to_owned());
        }
        let socket = open(&line, self.0.tls.as_deref()).await?;
        Ok((socket, line))
    }

    /// Notes whether Redis has accepted `login`. Every connection logs in again with a new one.
    fn settle(&self, login: &Arc<Login>, outcome: Result<(), &String>) {
        let credentials = &self.0.credentials;
        if credentials.settle(login, outcome.map_err(String::as_str)) {
            tracing::info!(
                files = credentials.files(),
                "Redis accepts the changed user or password; every connection logs in again"
            );
            self.0.lines.renew(login);
        }
    }

    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let Inner { timeout, tls, .. } = &*self.0;
        let hint = if tls.is_some() { "; does the server serve TLS on this port?" } else { "" };
        tokio::time::timeout(*timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {timeout:?}{hint}")))
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.locate.fmt(f)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.0.locate).finish()
    }
}
