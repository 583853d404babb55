//! TLS to Redis and to sentinels: certificates from files, which may change while tollgate runs.
//!
//! * `config`: the files as a configuration of rustls. `name`: a verifier that leaves out the name.
//! * `settings`: the section `redis.tls`. `fault`: errors of TLS with a hint for the operator.

mod config;
mod fault;
mod name;
mod settings;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::config::Files;
pub(super) use self::config::TlsFault;
pub(super) use self::fault::explain;
pub use self::settings::TlsSettings;

/// Makes streams over TLS.
pub(super) struct Tls {
    settings: TlsSettings,
    loaded: Mutex<Loaded>,
}

/// The files as they were last read, and the configuration of the last that fitted.
struct Loaded {
    files: Files,
    config: Arc<ClientConfig>,
    /// The faults that were logged since files last fitted.
    logged: BTreeSet<String>,
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
        let files = Files::read(settings)?;
        let config = files.config(settings)?;
        let loaded = Mutex::new(Loaded { files, config, logged: BTreeSet::new() });
        Ok(Self { settings: settings.clone(), loaded })
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
        let config = Arc::clone(&self.loaded.lock().config);
        let name = self.settings.server_name.as_deref().unwrap_or(host);
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("{name:?} is no name that a certificate can have; set redis.tls.server_name")
        })?;
        let connected = TlsConnector::from(config).connect(server, stream).await;
        connected.map_err(|error| fault::handshake(error).to_string())
    }

    /// Reads the files again. If they have changed and fit, new connections use them.
    pub(super) async fn reload(&self) {
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || Files::read(&settings)).await;
        let Ok(read) = read else { return };
        let mut loaded = self.loaded.lock();
        let fault = match read {
            Ok(files) if files == loaded.files => return,
            Ok(files) => match files.config(&self.settings) {
                Ok(config) => {
                    tracing::info!(
                        "the TLS files for Redis have changed; new connections use them"
                    );
                    *loaded = Loaded { files, config, logged: BTreeSet::new() };
                    return;
                }
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        let fault = format!("{}: {}", fault.setting, fault.reason);
        if loaded.logged.insert(fault.clone()) {
            tracing::warn!(
                fault,
                "changed TLS files for Redis cannot be used; connections use the previous ones"
            );
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}
