//! A real Redis that serves TLS.

use std::path::Path;

use tempfile::TempDir;
use tollgate::redis::RedisSettings;

use super::certs::{Authority, Pair};
use super::redis::{RedisServer, free_port, is_installed};

/// A Redis that serves TLS on `port`, and without TLS on a port of the test's own.
pub struct TlsRedis {
    pub server: RedisServer,
    pub port: u16,
    pub dir: TempDir,
    pub authority: Authority,
}

impl TlsRedis {
    /// With a certificate for these names; wants one of its clients or not.
    pub fn start(names: &[&str], wants_certificate: bool) -> Option<Self> {
        Self::start_as(wants_certificate, |authority, dir| authority.issue(dir, "redis", names))
    }

    /// With the certificate that `issue` makes.
    pub fn start_as(
        wants_certificate: bool,
        issue: impl FnOnce(&Authority, &Path) -> Pair,
    ) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let (authority, dir) = (Authority::new("test"), tempfile::tempdir().unwrap());
        let (ca, port) = (authority.file(dir.path().join("ca.crt")), free_port());
        let pair = issue(&authority, dir.path());
        let wants = if wants_certificate { "yes" } else { "no" };
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (ca, cert, key) = (path(&ca), path(&pair.cert), path(&pair.key));
        let own = port.to_string();
        let args = [
            ["--tls-port", &own],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
            ["--tls-auth-clients", wants],
        ];
        let server = RedisServer::on_port(free_port(), &args.concat());
        Some(Self { server, port, dir, authority })
    }

    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Settings that trust its authority.
    pub fn settings(&self) -> RedisSettings {
        let mut settings = RedisSettings::new(self.url()).unwrap();
        settings.tls.ca_file = Some(self.dir.path().join("ca.crt"));
        settings
    }
}
