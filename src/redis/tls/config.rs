//! The files of `redis.tls` as a configuration of rustls.

use std::sync::Arc;

use rustls::ClientConfig;

use super::name::AnyName;
use super::settings::TlsSettings;
use crate::tls::{Files, Paths, PemPath, TlsFault, Verifier, client_config};

/// The files of `settings`.
pub(super) fn paths(settings: &TlsSettings) -> Paths {
    let file = |setting, path: &Option<_>| PemPath { setting, path: path.clone() };
    Paths {
        ca: file("redis.tls.ca_file", &settings.ca_file),
        cert: file("redis.tls.cert_file", &settings.cert_file),
        key: file("redis.tls.key_file", &settings.key_file),
    }
}

/// The configuration that `files` make.
pub(super) fn config(files: &Files, settings: &TlsSettings) -> Result<ClientConfig, TlsFault> {
    let any_name: Verifier = |roots, provider| Arc::new(AnyName::new(roots, provider));
    client_config(files, settings.skip_hostname.then_some(any_name))
}
