//! One connection to Redis: locate the primary, open a socket, log in.
//!
//! The store uses its own RESP code, because it is on the path of every decision. The registry uses
//! the connections of the `redis` crate. This module does not reconnect or retry; the owner of a
//! connection does. The URL may contain a password, so neither it nor its parsed form is ever
//! shown.

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

/// The I/O of a connection: reads and writes the socket while it is polled, and ends when the
/// socket is closed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An open connection of the `redis` crate.
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) driver: Driver,
}

/// Makes connections: the address of a Redis and the log-in.
#[derive(Clone)]
pub(crate) struct Connector {
    locate: Locate,
    login: Login,
    /// The log-in as the `redis` crate takes it, for the registry.
    info: RedisConnectionInfo,
    timeout: Duration,
}

impl Connector {
    /// A connector for the Redis at `url`. An attempt to connect fails after `timeout`.
    ///
    /// # Errors
    /// Fails if the URL cannot be used.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, BadUrl> {
        // The detail text of the library gives the reason without quoting the URL.
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
    /// Fails with a reason for the operator.
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
    /// Fails with a reason for the operator.
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
    /// Fails with a reason for the operator.
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
    // The caller sets deadlines. The timeout of the library would keep a connection in use that no
    // longer answers.
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
