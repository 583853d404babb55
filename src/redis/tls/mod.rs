//! TLS to Redis and to sentinels: certificates from files, which may change while tollgate runs.
//!
//! * `config`: the files as a configuration of rustls. `name`: a verifier that leaves out the name.
//! * `settings`: the section `redis.tls`. `fault`: errors of TLS with a hint for the operator.

mod config;
mod fault;
mod name;
mod settings;

use std::fmt;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) use self::fault::explain;
pub use self::settings::TlsSettings;
use crate::tls::{Reloaded, TlsFault};

/// Makes streams over TLS.
pub(super) struct Tls {
    settings: TlsSettings,
    config: Reloaded<ClientConfig>,
}

impl Tls {
    /// Reads the files. Blocks for that.
    ///
    /// # Errors
    /// Fails with the setting and the reason if they cannot be used.
    pub(super) fn new(settings: &TlsSettings) -> Result<Self, TlsFault> {
        if let Some(name) = &settings.server_name {
            let fault = || TlsFault::new("redis.tls.server_name", format!("{name:?} is no name"));
            ServerName::try_from(name.as_str()).map_err(|_| fault())?;
        }
        let settings = settings.clone();
        let own = settings.clone();
        let build = move |files: &_| config::config(files, &own);
        let config = Reloaded::new("for Redis", config::paths(&settings), build)?;
        Ok(Self { settings, config })
    }

    /// Does the handshake on `stream`, which leads to `host`.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        self.reload().await;
        let name = self.settings.server_name.as_deref().unwrap_or(host);
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("{name:?} is no name that a certificate can have; set redis.tls.server_name")
        })?;
        let connected = TlsConnector::from(self.config.current()).connect(server, stream).await;
        connected.map_err(|error| fault::handshake(error).to_string())
    }

    /// Reads the files again. If they have changed and fit, new connections use them.
    pub(super) async fn reload(&self) {
        self.config.reload().await;
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}
