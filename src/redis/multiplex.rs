//! A connection of the `redis` crate on a socket.

use std::future::Future;
use std::pin::Pin;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};

use super::handshake::NO_LOGIN;
use super::login::Login;
use super::socket::Socket;

/// The I/O of a connection: reads and writes the socket while it is polled, and ends when the
/// socket is closed.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Logs in on `socket`.
pub(super) async fn multiplex(
    login: &Login,
    socket: Box<dyn Socket>,
) -> Result<(MultiplexedConnection, Driver), String> {
    // The caller sets deadlines. The timeout of the library would keep a connection in use that no
    // longer answers.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (connection, driver) =
        MultiplexedConnection::new_with_config(&login.info(), socket, config)
            .await
            .map_err(|error| reason(&error))?;
    Ok((connection, Box::pin(driver)))
}

/// The reason in an error of the `redis` crate.
pub(super) fn reason(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => format!("{NO_LOGIN}: {error}"),
        _ => error.to_string(),
    }
}
