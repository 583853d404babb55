//! Peers over TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::field::POLICIES;
use crate::peer::{Socket, connect};
use crate::support::certs::Authority;
use crate::support::grpc::Client;
use crate::support::tollgate::Options;

/// The files of a gRPC listener with TLS, and peers that trust them.
pub struct House {
    dir: TempDir,
    ca: PathBuf,
    config: Arc<ClientConfig>,
}

pub type Stream = StreamOwned<ClientConnection, Socket>;

impl House {
    pub fn new() -> Self {
        let (authority, dir) = (Authority::new("house"), tempfile::tempdir().unwrap());
        let ca = authority.file(dir.path().join("ca.crt"));
        authority.issue(dir.path(), "server", &["127.0.0.1"]);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each handshake is a full one.
        config.resumption = rustls::client::Resumption::disabled();
        Self { dir, ca, config: Arc::new(config) }
    }

    /// A tollgate whose gRPC listener serves TLS.
    pub fn tollgate(&self) -> Options {
        let file = |setting: &str, name: &str| {
            format!("grpc.tls.{setting}={}", self.dir.path().join(name).display())
        };
        Options::serving(POLICIES)
            .set(file("cert_file", "server.crt"))
            .set(file("key_file", "server.key"))
    }

    /// The well-behaved caller.
    pub async fn client(&self, at: SocketAddr) -> Client {
        let ca = Certificate::from_pem(std::fs::read(&self.ca).unwrap());
        let endpoint = Endpoint::from_shared(format!("https://{at}")).unwrap();
        let config = ClientTlsConfig::new().ca_certificate(ca);
        Client::new(endpoint.tls_config(config).unwrap().connect().await.unwrap())
    }

    /// Connects from 127.0.0.`last` and does the handshake; none if tollgate refuses.
    pub fn connect(&self, to: SocketAddr, last: u8) -> Option<Stream> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let Socket(mut stream) = connect(to, last);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        while client.is_handshaking() {
            client.complete_io(&mut stream).ok()?;
        }
        stream.set_nonblocking(true).unwrap();
        Some(StreamOwned::new(client, Socket(stream)))
    }
}
