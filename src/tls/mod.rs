//! Certificates, keys and authorities from PEM files, for both sides of TLS: tollgate as a client
//! of Redis and of a control plane, and the listeners as servers.
//!
//! * `files`: the files of one section of settings, read and understood.
//! * `Reloaded` (`reload`): what they make, renewed when they change.
//! * `client`: the files as the configuration of a client.
//! * `certificate`: names and end of validity of a certificate.

pub(crate) mod certificate;
mod client;
mod files;
mod reload;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

pub(crate) use self::client::read_client_config;
pub use self::client::{Verifier, client_config};
pub use self::files::{Files, Paths, PemPath};
pub(crate) use self::reload::Reloaded;

/// A setting for TLS that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct TlsFault {
    /// The setting, dotted.
    pub setting: &'static str,
    /// The reason.
    pub reason: String,
}

impl TlsFault {
    pub(crate) const fn new(setting: &'static str, reason: String) -> Self {
        Self { setting, reason }
    }
}

/// The cryptography of every connection.
///
/// ring and not aws-lc-rs: it builds without `CMake` and with one C compiler, also for other
/// processors, in a fraction of the time. What aws-lc-rs adds is post-quantum key exchange and a
/// FIPS module.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
