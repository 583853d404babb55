//! The sections `grpc.tls`, `admin.tls` and `http.tls` of the settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::san::SanPatterns;
use crate::settings::{Reader, section};
use crate::tls::{Paths, PemPath};

/// Declares a section, which differs from the others in its name alone, and what the server of its
/// listener needs of it.
macro_rules! tls_section {
    ($section:ident, $prefix:literal, $about:literal $(, $($more:tt)+)?) => {
        section! {
            #[doc = $about]
            pub struct $section in $prefix {
                /// File with the certificate and its chain, PEM. With it the listener serves TLS
                /// alone, 1.2 and 1.3. Read again when it changes, as the other files are.
                cert_file: Option<PathBuf> = "",
                /// File with the key of `cert_file`, PEM: PKCS #8, PKCS #1 or SEC 1.
                key_file: Option<PathBuf> = "",
                /// File with the authorities of client certificates, PEM. With it a caller needs a
                /// certificate that one of them has signed.
                client_ca_file: Option<PathBuf> = "",
                /// Alternative names of which a client certificate must have one; a `*` at the
                /// start or the end stands for any text. Unset = any certificate of the
                /// authorities.
                client_san: SanPatterns = "",
                $($($more)+)?
            }
        }

        impl $section {
            /// What the server needs.
            pub(crate) fn server(&self) -> ServerSettings {
                let file = |setting, path: &Option<_>| PemPath { setting, path: path.clone() };
                ServerSettings {
                    paths: Paths {
                        ca: file(concat!($prefix, ".client_ca_file"), &self.client_ca_file),
                        cert: file(concat!($prefix, ".cert_file"), &self.cert_file),
                        key: file(concat!($prefix, ".key_file"), &self.key_file),
                    },
                    client_san: self.client_san.clone(),
                }
            }

            /// Nothing of TLS is set without a certificate, and no names without authorities.
            pub(crate) fn resolve(&self, reader: &mut Reader) {
                let paired = self.cert_file.is_some() || self.key_file.is_some();
                if self.client_ca_file.is_some() && !paired {
                    let message = concat!("has no effect without ", $prefix, ".cert_file");
                    reader.refuse(concat!($prefix, ".client_ca_file"), message);
                }
                if !self.client_san.is_empty() && self.client_ca_file.is_none() {
                    let message = concat!("has no effect without ", $prefix, ".client_ca_file");
                    reader.refuse(concat!($prefix, ".client_san"), message);
                }
            }
        }
    };
}

tls_section!(
    GrpcTlsSettings,
    "grpc.tls",
    " TLS on the gRPC listener.",
    /// Who may ask about a domain: alternative names by domain, such as
    /// `{payments: "spiffe://mesh/ns/pay/*"}`. A domain that is not in it is open to every caller.
    /// In the file only.
    domain_san: BTreeMap<String, SanPatterns> = "",
);
tls_section!(AdminTlsSettings, "admin.tls", " TLS on the admin listener.");
tls_section!(HttpTlsSettings, "http.tls", " TLS on the HTTP listener.");

/// The settings of one listener.
#[derive(Clone, Debug)]
pub(crate) struct ServerSettings {
    /// The files; without a certificate the listener is in clear.
    pub(crate) paths: Paths,
    /// The names of which a client certificate must have one.
    pub(crate) client_san: SanPatterns,
}

impl ServerSettings {
    /// True if the listener serves TLS.
    pub(crate) const fn is_set(&self) -> bool {
        self.paths.cert.path.is_some() || self.paths.key.path.is_some()
    }
}
