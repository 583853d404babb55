//! The section `redis.tls` of the settings.

use std::path::PathBuf;

use crate::settings::section;

section! {
    /// TLS to Redis and to sentinels. Files are read again when they change.
    pub struct TlsSettings in "redis.tls" {
        /// Connect over TLS. `rediss://` in `redis.url` does the same.
        enabled: bool = "false",
        /// File with the certificates of the authorities to trust, PEM; unset = those of the
        /// system.
        ca_file: Option<PathBuf> = "",
        /// File with the certificate of tollgate and its chain, PEM, for Redis that asks for one.
        cert_file: Option<PathBuf> = "",
        /// File with the key of `cert_file`, PEM: PKCS #8, PKCS #1 or SEC 1.
        key_file: Option<PathBuf> = "",
        /// Name that the certificate of Redis must have; unset = the host that is connected to.
        server_name: Option<String> = "",
        /// Verify the chain of the certificate, but no name.
        skip_hostname: bool = "false",
    }
}
