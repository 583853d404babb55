//! Certificates as Envoy Gateway makes them: RSA, keys in PKCS #1, leaves without extended key
//! usage. rcgen makes no RSA keys, so openssl does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

/// An authority in a directory of its own.
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), "genrsa -traditional -out ca.key 2048");
        run(dir.path(), "req -x509 -new -key ca.key -subj /CN=envoy-gateway -days 365 -out ca.crt");
        Self { dir }
    }

    /// Writes `ca.crt`, and `tls.crt` and `tls.key` for these names, into `directory`.
    pub fn issue(&self, directory: &Path, common_name: &str, names: &[&str]) {
        let dir = self.dir.path();
        let names: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        fs::write(dir.join("names"), format!("subjectAltName={}\n", names.join(","))).unwrap();
        run(dir, "genrsa -traditional -out tls.key 2048");
        run(dir, &format!("req -new -key tls.key -subj /CN={common_name} -out tls.csr"));
        run(
            dir,
            "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -days 365 -extfile names -out tls.crt",
        );
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            fs::copy(dir.join(file), directory.join(file)).unwrap();
        }
    }

    /// A server of TLS 1.3 that needs certificates of its clients.
    pub fn server(&self) -> ServerConfig {
        let dir = tempfile::tempdir().unwrap();
        self.issue(dir.path(), "envoy-gateway", &["envoy-gateway", "envoy-gateway.ns.svc"]);
        let key = fs::read_to_string(dir.path().join("tls.key")).unwrap();
        assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "PKCS #1");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&dir.path().join("ca.crt"))).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate(&dir.path().join("tls.crt"))],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// The first certificate of a file.
pub fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&fs::read(path).unwrap()).unwrap()
}

/// A directory as Kubernetes mounts a Secret: the files are links through `..data`.
pub struct Mounted {
    dir: TempDir,
    version: u32,
}

impl Mounted {
    pub fn new() -> Self {
        let mounted = Self { dir: tempfile::tempdir().unwrap(), version: 0 };
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), mounted.path(file)).unwrap();
        }
        mounted
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Puts what `write` writes in the place of all files at once.
    pub fn swap(&mut self, write: impl FnOnce(&Path)) {
        self.version += 1;
        let name = format!("..{}", self.version);
        fs::create_dir(self.path(&name)).unwrap();
        write(&self.path(&name));
        symlink(&name, self.path("..next")).unwrap();
        fs::rename(self.path("..next"), self.path("..data")).unwrap();
    }
}

fn run(dir: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {told}");
}
