//! The flags for TLS of the commands that call a listener: `tollgate admin` and `tollgate load`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use http::Uri;
use http::uri::Scheme;
use rustls::ClientConfig;
use tollgate::tls::{Files, Paths, PemPath, client_config};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// TLS of a caller, for a URL with `https://`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// File with the authorities to trust over https, PEM; default: those of the system
    #[arg(long, global = true, value_name = "FILE", env = "TOLLGATE_CLIENT_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// File with the certificate to show, PEM, for a listener that asks for one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "key_file",
        env = "TOLLGATE_CLIENT_CERT_FILE"
    )]
    cert_file: Option<PathBuf>,
    /// File with the key of that certificate, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "cert_file",
        env = "TOLLGATE_CLIENT_KEY_FILE"
    )]
    key_file: Option<PathBuf>,
    /// Name that the certificate of the listener must have; default: the host of the URL
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
}

impl TlsArgs {
    /// `endpoint`, over TLS if its URL says so.
    ///
    /// # Errors
    /// Fails with the flag and the reason if a file cannot be used.
    pub(crate) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, String> {
        if !self.is_wanted(endpoint.uri())? {
            return Ok(endpoint);
        }
        let mut config = ClientTlsConfig::new();
        config = match &self.ca_file {
            Some(path) => config.ca_certificate(Certificate::from_pem(read("--ca-file", path)?)),
            None => config.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            let (cert, key) = (read("--cert-file", cert)?, read("--key-file", key)?);
            config = config.identity(Identity::from_pem(cert, key));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        let cannot = |error| format!("TLS cannot be set up: {}", cause(&error));
        endpoint.tls_config(config).map_err(cannot)
    }

    /// The configuration of TLS that the flags make, if `uri` says so.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(crate) fn config(&self, uri: &Uri) -> Result<Option<ClientConfig>, String> {
        if !self.is_wanted(uri)? {
            return Ok(None);
        }
        let file = |setting, path: &Option<PathBuf>| PemPath { setting, path: path.clone() };
        let paths = Paths {
            ca: file("--ca-file", &self.ca_file),
            cert: file("--cert-file", &self.cert_file),
            key: file("--key-file", &self.key_file),
        };
        let config = Files::read(&paths).and_then(|files| client_config(&files, None));
        config.map(Some).map_err(|fault| fault.to_string())
    }

    /// The name that the certificate must have, if it is not the host of the URL.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Says if `uri` asks for TLS.
    fn is_wanted(&self, uri: &Uri) -> Result<bool, String> {
        match self.first() {
            _ if uri.scheme() == Some(&Scheme::HTTPS) => Ok(true),
            None => Ok(false),
            Some(flag) => Err(format!("{flag} has no effect on {uri}; write https:// for TLS")),
        }
    }

    /// The first flag that is given.
    fn first(&self) -> Option<&'static str> {
        [
            ("--ca-file (TOLLGATE_CLIENT_CA_FILE)", self.ca_file.is_some()),
            ("--cert-file (TOLLGATE_CLIENT_CERT_FILE)", self.cert_file.is_some()),
            ("--server-name", self.server_name.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

/// The innermost cause of an error.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
