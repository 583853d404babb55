//! A tollgate whose listeners have TLS, and callers with certificates of its authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::certs::{Authority, Pair};
use crate::support::grpc::Client;
use crate::support::tollgate::{Options, Tollgate};

/// What the listeners are reached by.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

pub const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: hour, requests_per_unit: 3}}
";

/// An authority with the files that it has signed.
pub struct House {
    pub authority: Authority,
    pub dir: TempDir,
    pub ca: PathBuf,
}

impl House {
    /// With the certificate of the listeners in `server.crt` and `server.key`.
    pub fn new() -> Self {
        let (authority, dir) = (Authority::new("house"), tempfile::tempdir().unwrap());
        let ca = authority.file(dir.path().join("ca.crt"));
        authority.issue(dir.path(), "server", &NAMES);
        Self { authority, dir, ca }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A setting of `LISTENER.tls` that names a file of the house.
    pub fn file(&self, listener: &str, setting: &str, name: &str) -> String {
        format!("{listener}.tls.{setting}={}", self.path(name))
    }

    /// A tollgate whose listeners of these names serve TLS.
    pub fn tollgate(&self, listeners: &[&str]) -> Options {
        listeners.iter().fold(Options::serving(POLICIES), |options, listener| {
            let options = options.set(self.file(listener, "cert_file", "server.crt"));
            options.set(self.file(listener, "key_file", "server.key"))
        })
    }

    /// As [`Self::tollgate`], and its callers need certificates of the authority.
    pub fn mutual(&self, listeners: &[&str]) -> Options {
        listeners.iter().fold(self.tollgate(listeners), |options, listener| {
            options.set(self.file(listener, "client_ca_file", "ca.crt"))
        })
    }

    /// A caller that trusts the authority and has this certificate.
    pub fn caller(&self, pair: Option<&Pair>) -> ClientTlsConfig {
        trusting(&self.ca, pair)
    }

    /// A certificate of the authority for these names.
    pub fn pair(&self, names: &[&str]) -> Pair {
        let name = format!("client-{}", names.join("-").replace(['/', ':'], "_"));
        self.authority.issue(self.dir.path(), &name, names)
    }
}

pub fn trusting(ca: &Path, pair: Option<&Pair>) -> ClientTlsConfig {
    let ca = Certificate::from_pem(std::fs::read(ca).unwrap());
    let config = ClientTlsConfig::new().ca_certificate(ca);
    let Some(Pair { cert, key }) = pair else { return config };
    config.identity(Identity::from_pem(std::fs::read(cert).unwrap(), std::fs::read(key).unwrap()))
}

pub async fn connect(
    address: SocketAddr,
    config: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(config).unwrap().connect().await
}

pub async fn client(tollgate: &Tollgate, config: ClientTlsConfig) -> Client {
    RateLimitServiceClient::new(connect(tollgate.at.grpc, config).await.unwrap())
}
