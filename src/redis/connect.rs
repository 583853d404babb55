//! One connection to Redis: locate the server, open a socket, log in.
//!
//! The store uses its own RESP code, because it is on the path of every decision. The registry uses
//! the connections of the `redis` crate. This module does not reconnect or retry; the owner of a
//! connection does. Passwords are never shown.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{RedisError, Value};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SetupError;
use super::address::Address;
use super::cluster::{AskSlots, Cluster, Redirect, redirect};
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
pub struct Connector {
    locate: Locate,
    inner: Arc<Inner>,
}

/// The parts that the connectors to the nodes of a cluster share.
struct Inner {
    /// The whole, where a connector leads to a part of it.
    locate: Locate,
    credentials: Arc<Credentials>,
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
        self.0.upgrade().map(Connector::of)
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
        let credentials = Arc::new(credentials);
        let tasks = CancellationToken::new().drop_guard();
        Self::of(Arc::new(Inner { locate, credentials, tls, lines, refusals, timeout, tasks }))
    }

    fn of(inner: Arc<Inner>) -> Self {
        Self { locate: inner.locate.clone(), inner }
    }

    /// A connector for one node, with the same log-in.
    pub(crate) fn at(&self, address: Address) -> Self {
        Self { locate: Locate::Fixed(address), inner: Arc::clone(&self.inner) }
    }

    /// A connector for the nodes of the cluster that `seeds` belong to, with the same log-in.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub(super) fn of_cluster(&self, seeds: Vec<Address>) -> Self {
        // The task of the cluster has a connector of its own, which does not keep the cluster.
        let cluster = Cluster::start(seeds, self.clone());
        let Inner { credentials, tls, lines, refusals, timeout, .. } = &*self.inner;
        Self::of(Arc::new(Inner {
            locate: Locate::Cluster(Arc::new(cluster), None),
            credentials: Arc::clone(credentials),
            tls: tls.clone(),
            lines: Arc::clone(lines),
            refusals: Arc::clone(refusals),
            timeout: *timeout,
            tasks: CancellationToken::new().drop_guard(),
        }))
    }

    /// A connector for the node that has `slot`; the only server, if there is no cluster.
    pub(crate) fn of_slot(&self, slot: u16) -> Self {
        let Some(cluster) = self.cluster() else { return self.clone() };
        let locate = Locate::Cluster(Arc::clone(cluster), Some(slot));
        Self { locate, inner: Arc::clone(&self.inner) }
    }

    /// The cluster, if this leads to one.
    pub(crate) const fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.locate.cluster()
    }

    /// Notes the redirection in an error of the `redis` crate.
    pub(crate) fn note_moved(&self, error: &RedisError) {
        let Some(cluster) = self.cluster() else { return };
        let Some((to, slot)) = error.redirect_node() else { return };
        let answered = cluster.node_of(slot).and_then(|node| cluster.address(node));
        let read = |answered| redirect(&format!("MOVED {slot} {to}"), &answered);
        match answered.and_then(read) {
            Some(Redirect::Moved { slot, to }) => cluster.moved(slot, to.as_ref()),
            _ => cluster.moved(slot, None),
        }
    }

    pub(super) fn downgrade(&self) -> WeakConnector {
        WeakConnector(Arc::downgrade(&self.inner))
    }

    pub(super) const fn locate(&self) -> &Locate {
        &self.locate
    }

    /// Checks what sentinels or nodes of a cluster say about the settings, as far as they answer.
    ///
    /// # Errors
    /// Fails if sentinels do not know the name of the primary, or nodes belong to no cluster.
    pub(crate) async fn check_topology(&self) -> Result<(), SetupError> {
        if let Some(sentinels) = self.locate.sentinels() {
            let setting = "redis.sentinel.master";
            let checked = sentinels.check_name().await;
            return checked.map_err(|reason| SetupError::Setting { setting, reason });
        }
        let Some(cluster) = self.cluster() else { return Ok(()) };
        match tokio::time::timeout(self.inner.timeout, cluster.tried()).await {
            Ok(Err(reason)) if reason.contains("cluster support disabled") => {
                let setting = "redis.topology";
                let reason = format!("is cluster, but {reason}; set it to standalone");
                Err(SetupError::Setting { setting, reason })
            }
            _ => Ok(()),
        }
    }

    /// The address of the primary as far as it is known.
    pub(crate) fn primary(&self) -> Option<String> {
        self.locate.known().map(|address| address.to_string())
    }

    /// The number of times that the primary has moved.
    pub(crate) fn switches(&self) -> u64 {
        self.locate.sentinels().map_or(0, |sentinels| sentinels.switches())
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// Cancelled with the last clone.
    pub(super) fn dropped(&self) -> CancellationToken {
        self.inner.tasks.token().clone()
    }

    /// True if something about it can change while it is in use.
    pub(super) fn has_files(&self) -> bool {
        self.inner.credentials.have_files() || self.inner.tls.is_some()
    }

    /// Reads the files of credentials and certificates again. Changed credentials are tried on a
    /// connection of their own; if Redis accepts them, every connection logs in again.
    pub(super) async fn refresh(&self) {
        if let Some(tls) = &self.inner.tls {
            tls.reload().await;
        }
        if let Some(login) = self.inner.credentials.changed().await {
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
            let login = self.inner.credentials.choose().await;
            let (socket, line) = self.open(Renewal::LogIn).await?;
            let mut wire = Wire::new(socket, line, self.inner.tls.is_some());
            let logged_in = handshake::log_in(&login, &mut wire, script).await;
            self.settle(&login, logged_in.as_ref().copied());
            logged_in?;
            if self.locate.sentinels().is_some() {
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
        let login = self.inner.credentials.choose().await;
        self.in_time(self.link(&login)).await
    }

    /// Connects, logs in and subscribes to `channel`. The connection ends when user or password
    /// change.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, String> {
        let attempt = async {
            let login = self.inner.credentials.choose().await;
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
        if self.locate.sentinels().is_some() {
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
        let address = self.locate.primary().await?;
        let line = self.inner.lines.add(address, renewal, Arc::clone(&self.inner.refusals));
        // After the line was added: the primary moves before, and is seen here, or it moves later,
        // and ends the line.
        if !self.locate.is_current(line.address()) {
            return Err("the primary has moved meanwhile".to_owned());
        }
        let socket = open(&line, self.inner.tls.as_deref()).await?;
        Ok((socket, line))
    }

    /// Notes whether Redis has accepted `login`. Every connection logs in again with a new one.
    fn settle(&self, login: &Arc<Login>, outcome: Result<(), &String>) {
        let credentials = &self.inner.credentials;
        if credentials.settle(login, outcome.map_err(String::as_str)) {
            tracing::info!(
                files = credentials.files(),
                "Redis accepts the changed user or password; every connection logs in again"
            );
            self.inner.lines.renew(login);
        }
    }

    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let Inner { timeout, tls, .. } = &*self.inner;
        let hint = if tls.is_some() { "; does the server serve TLS on this port?" } else { "" };
        let made = tokio::time::timeout(*timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {timeout:?}{hint}")));
        if let (Err(_), Some(cluster)) = (&made, self.cluster()) {
            cluster.trouble(None);
        }
        made
    }
}

impl AskSlots for Connector {
    async fn slots(&self, address: &Address) -> Result<Value, String> {
        let Link { mut connection, mut driver, .. } = self.at(address.clone()).connect().await?;
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        tokio::select! {
            reply = command.query_async(&mut connection) => reply.map_err(|error| reason(&error)),
            () = &mut driver => Err("Redis closed the connection".to_owned()),
        }
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.locate.fmt(f)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.locate).finish()
    }
}
