//! One connection to Redis: locate the primary, open a socket, log in.
//!
//! The store's connections are ours from the first byte. The registry, which is not on the path of a decision, uses
//! the connections of the `redis` crate. Nothing here reconnects or retries; the owner of a connection decides that.
//! The URL may hold a password, so neither it nor the parsed form is ever shown.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
};

use super::BadUrl;
use super::locate::{Address, Locate};
use super::login::Login;
use super::socket::Socket;
use super::wire::Wire;

/// The work of a connection: reads and writes its socket as long as it is polled, and ends when the socket is closed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An open connection.
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) driver: Driver,
}

/// The way to a Redis, and the user there.
#[derive(Clone)]
pub(crate) struct Connector {
    locate: Locate,
    login: Login,
    /// The log-in in the form of the `redis` crate, for the registry.
    info: RedisConnectionInfo,
    timeout: Duration,
}

impl Connector {
    /// The way to the Redis at `url`; an attempt to connect ends after `timeout`.
    ///
    /// # Errors
    /// A URL that cannot be used.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, BadUrl> {
        // The library's own text names the reason without quoting the URL.
        let parsed = url
            .into_connection_info()
            .map_err(|error| BadUrl(error.detail().unwrap_or(error.category()).to_owned()))?;
        if let ConnectionAddr::TcpTls { .. } = parsed.addr() {
            return Err(BadUrl("TLS is not supported".into()));
        }
        let address = Address::of_url(parsed.addr())
            .ok_or_else(|| BadUrl("this kind of address is not supported".into()))?;
        let info = parsed.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self { locate: Locate::Fixed(address), login: Login::of_url(&info), info, timeout })
    }

    /// Connects, logs in and loads `script`.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub(crate) async fn connect_with(&self, script: &str) -> Result<Wire, String> {
        let attempt = async {
            let socket = self.locate.primary().open().await.map_err(|error| error.to_string())?;
            let mut wire = Wire::new(socket);
            self.login.log_in(&mut wire, script).await?;
            Ok(wire)
        };
        self.in_time(attempt).await
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub(crate) async fn connect(&self) -> Result<Link, String> {
        let attempt = async {
            let socket = self.locate.primary().open().await.map_err(|error| error.to_string())?;
            log_in(&self.info, socket).await
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
                let mut connection =
                    PubSub::new(&self.info, self.locate.primary().open().await?).await?;
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
}

async fn log_in(login: &RedisConnectionInfo, socket: Box<dyn Socket>) -> Result<Link, String> {
    // Deadlines are ours: the library's would leave a connection in use that no longer answers.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (connection, driver) = MultiplexedConnection::new_with_config(login, socket, config)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Link { connection, driver: Box::pin(driver) })
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.locate.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
