//! The files of a listener as a configuration of rustls.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::settings::ServerSettings;
use super::verifier::NamedClients;
use crate::tls::{Files, TlsFault, certificate, provider};

/// The certificate and configuration that a listener serves.
pub(super) struct Served {
    pub(super) config: Arc<ServerConfig>,
    pub(super) certificate_setting: &'static str,
    /// The time at which the first certificate of the chain ends, in seconds since 1970.
    pub(super) certificate_end: Option<i64>,
    pub(super) authorities_setting: &'static str,
    /// The same of the authorities of clients.
    pub(super) authorities_end: Option<i64>,
}

/// Builds it from `files`; clients that name protocols have to name `protocol`.
pub(super) fn build(
    files: &Files,
    settings: &ServerSettings,
    protocol: &[u8],
) -> Result<Served, TlsFault> {
    let paths = &settings.paths;
    let Some((chain, key)) = files.pair()? else {
        return Err(TlsFault::new(paths.cert.setting, "is needed for TLS".to_owned()));
    };
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::new(paths.cert.setting, error.to_string()))?;
    let builder = match files.roots()? {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let chain = chain
                .build()
                .map_err(|error| TlsFault::new(paths.ca.setting, error.to_string()))?;
            let names = settings.client_san.clone();
            builder.with_client_cert_verifier(Arc::new(NamedClients { chain, names }))
        }
    };
    let certificate_end = certificate::end(&chain);
    let mut config = builder.with_single_cert(chain, key).map_err(|error| files.misfit(&error))?;
    config.alpn_protocols = vec![protocol.to_vec()];
    if paths.ca.path.is_some() {
        // A resumed session would outlive the certificate of its client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Served {
        config: Arc::new(config),
        certificate_setting: paths.cert.setting,
        certificate_end,
        authorities_setting: paths.ca.setting,
        authorities_end: certificate::end(&files.authorities()?),
    })
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("ends", &self.certificate_end).finish_non_exhaustive()
    }
}
