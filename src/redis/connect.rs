//! One connection to a standalone Redis: how it is made, and how long to wait before the next attempt.
//!
//! It does not reconnect by itself and retries nothing: `batch.rs`, or the registry, owns it and decides that. The
//! URL may hold a password, so neither it nor the parsed form is ever shown.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::BadUrl;
use super::lend::lend;
use super::wire::Wire;
use crate::store::redis::script::Script;

/// The work of a connection: reads and writes its socket as long as it is polled, and ends when the socket is closed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An open connection.
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) driver: Driver,
}

/// The bytes under a connection.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Where Redis is and who we are there.
#[derive(Clone)]
pub(crate) struct Connector {
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    timeout: Duration,
}

impl Connector {
    /// The Redis at `url`; an attempt to connect ends after `timeout`.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, BadUrl> {
        // The library's own text names the reason without quoting the URL.
        let info = url
            .into_connection_info()
            .map_err(|error| BadUrl(error.detail().unwrap_or(error.category()).to_owned()))?;
        if let ConnectionAddr::TcpTls { .. } = info.addr() {
            return Err(BadUrl("TLS is not supported".into()));
        }
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self { address: info.addr().clone(), login, timeout })
    }

    /// Connects, logs in and loads `script`. The client library does it; the socket is the store's afterwards.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub(crate) async fn connect_with(&self, script: &Script) -> Result<Wire, String> {
        // What comes unasked in later versions of the protocol, and its further kinds of replies, the store cannot read.
        let login = self.login.clone().set_protocol(ProtocolVersion::RESP2);
        let attempt = async {
            let socket = self.open().await.map_err(|error| error.to_string())?;
            let (lent, borrowed) = lend(socket);
            let Link { mut connection, mut driver } = log_in(&login, borrowed).await?;
            let load = script.load();
            tokio::select! {
                loaded = load.query_async::<Value>(&mut connection) => {
                    loaded.map_err(|error| format!("the script cannot be loaded: {error}"))?;
                }
                () = &mut driver => return Err("closed while the script was loaded".to_owned()),
            }
            drop(driver);
            let socket = lent.take_back().ok_or("the socket is still in use")?;
            Ok(Wire::new(socket))
        };
        self.in_time(attempt).await
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub(crate) async fn connect(&self) -> Result<Link, String> {
        let attempt = async {
            let socket = self.open().await.map_err(|error| error.to_string())?;
            log_in(&self.login, socket).await
        };
        self.in_time(attempt).await
    }

    /// Connects, logs in and subscribes to `channel`.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, String> {
        let attempt = async {
            let subscribed = async {
                let mut connection = PubSub::new(&self.login, self.open().await?).await?;
                connection.subscribe(channel).await?;
                Ok::<_, RedisError>(connection)
            };
            subscribed.await.map_err(|error| error.to_string())
        };
        self.in_time(attempt).await
    }

    async fn in_time<T>(
        &self,
        attempt: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        tokio::time::timeout(self.timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {:?}", self.timeout)))
    }

    async fn open(&self) -> std::io::Result<Box<dyn Socket>> {
        match &self.address {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // Small frames wait for acknowledgements otherwise (Nagle).
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            _ => Err(std::io::Error::other("this kind of address is not supported")),
        }
    }
}

async fn log_in(
    login: &RedisConnectionInfo,
    socket: impl Socket + 'static,
) -> Result<Link, String> {
    // Deadlines are ours: the library's would leave a connection in use that no longer answers.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (connection, driver) = MultiplexedConnection::new_with_config(login, socket, config)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Link { connection, driver: Box::pin(driver) })
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Growing waits between attempts to connect, each shortened at random, so that replicas do not come back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    random: RandomState,
    attempts: u64,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(50);
    pub(crate) const LONGEST: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self { next: Self::SHORTEST, random: RandomState::new(), attempts: 0 }
    }

    /// The next wait: between half of its length and the whole.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::LONGEST);
        self.attempts += 1;
        let half = whole / 2;
        let share = self.random.hash_one(self.attempts) % 1_001;
        half + half.mul_f64(share as f64 / 1_000.0)
    }

    pub(crate) fn reset(&mut self) {
        self.next = Self::SHORTEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_start_again() {
        let mut backoff = Backoff::new();
        let first = backoff.wait();
        assert!(first >= Backoff::SHORTEST / 2 && first <= Backoff::SHORTEST, "{first:?}");
        let later = (0..10).map(|_| backoff.wait()).last().unwrap();
        assert!(later >= Backoff::LONGEST / 2 && later <= Backoff::LONGEST, "{later:?}");
        backoff.reset();
        assert!(backoff.wait() <= Backoff::SHORTEST);
    }

    #[test]
    fn bad_urls_are_refused_without_showing_a_password() {
        for url in
            ["", "redis//x", "http://u:hunter2@x/", "redis://:hunter2@x/db", "rediss://:hunter2@x"]
        {
            let fault = Connector::new(url, Duration::ZERO).err().expect(url).to_string();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
