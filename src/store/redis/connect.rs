//! One connection to a standalone Redis: how it is made, and how long to wait before the next attempt.
//!
//! It does not reconnect by itself and retries nothing: `batch.rs` owns it and decides that. The URL may hold a
//! password, so neither it nor the parsed form is ever shown.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::script::Script;
use super::{BadUrl, RedisSettings};

/// The work of a connection: reads and writes its socket as long as it is polled, and ends when the socket is closed.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An open connection with the script loaded.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Driver,
}

/// Where Redis is and who we are there.
pub(super) struct Connector {
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, BadUrl> {
        // The library's own text names the reason without quoting the URL.
        let info = settings
            .url
            .as_str()
            .into_connection_info()
            .map_err(|error| BadUrl(error.detail().unwrap_or(error.category()).to_owned()))?;
        if let ConnectionAddr::TcpTls { .. } = info.addr() {
            return Err(BadUrl("TLS is not supported".into()));
        }
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self { address: info.addr().clone(), login, timeout: settings.connect_timeout })
    }

    /// Connects, logs in and loads `script`.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub(super) async fn connect(&self, script: &Script) -> Result<Link, String> {
        let attempt = async {
            match &self.address {
                ConnectionAddr::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await;
                    let stream = stream.map_err(|error| error.to_string())?;
                    // Small frames wait for acknowledgements otherwise (Nagle).
                    stream.set_nodelay(true).map_err(|error| error.to_string())?;
                    self.log_in(stream, script).await
                }
                ConnectionAddr::Unix(path) => {
                    let stream = UnixStream::connect(path).await;
                    self.log_in(stream.map_err(|error| error.to_string())?, script).await
                }
                _ => Err("this kind of address is not supported".to_owned()),
            }
        };
        tokio::time::timeout(self.timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {:?}", self.timeout)))
    }

    async fn log_in<S>(&self, stream: S, script: &Script) -> Result<Link, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Deadlines are ours: the library's would leave a connection in use that no longer answers.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(&self.login, stream, config)
                .await
                .map_err(|error| error.to_string())?;
        let mut driver: Driver = Box::pin(driver);
        let load = script.load();
        tokio::select! {
            loaded = load.query_async::<Value>(&mut connection) => {
                loaded.map_err(|error| format!("the script cannot be loaded: {error}"))?;
            }
            () = &mut driver => return Err("closed while the script was loaded".to_owned()),
        }
        Ok(Link { connection, driver })
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Growing waits between attempts to connect, each shortened at random, so that replicas do not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    random: RandomState,
    attempts: u64,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(50);
    pub(super) const LONGEST: Duration = Duration::from_secs(1);

    pub(super) fn new() -> Self {
        Self { next: Self::SHORTEST, random: RandomState::new(), attempts: 0 }
    }

    /// The next wait: between half of its length and the whole.
    pub(super) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::LONGEST);
        self.attempts += 1;
        let half = whole / 2;
        let share = self.random.hash_one(self.attempts) % 1_001;
        half + half.mul_f64(share as f64 / 1_000.0)
    }

    pub(super) fn reset(&mut self) {
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
            let fault = Connector::new(&RedisSettings::new(url)).err().expect(url).to_string();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
