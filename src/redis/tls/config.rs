//! The files of `redis.tls` as a configuration of rustls.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::name::AnyName;
use super::settings::TlsSettings;

const CA: &str = "redis.tls.ca_file";
const CERT: &str = "redis.tls.cert_file";
const KEY: &str = "redis.tls.key_file";

/// A setting of `redis.tls` that cannot be used.
#[derive(Debug)]
pub(in crate::redis) struct TlsFault {
    /// The setting, dotted.
    pub(in crate::redis) setting: &'static str,
    pub(in crate::redis) reason: String,
}

impl TlsFault {
    pub(super) const fn new(setting: &'static str, reason: String) -> Self {
        Self { setting, reason }
    }
}

/// The contents of the files; `None` where no file is set.
#[derive(Eq, PartialEq)]
pub(super) struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Files {
    /// Reads the files.
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, TlsFault> {
        Ok(Self {
            ca: read(CA, settings.ca_file.as_deref())?,
            cert: read(CERT, settings.cert_file.as_deref())?,
            key: read(KEY, settings.key_file.as_deref())?,
        })
    }

    /// The configuration that they make.
    pub(super) fn config(&self, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsFault> {
        // ring and not aws-lc-rs: it builds without CMake and with one C compiler, in a fraction of
        // the time, and Redis gains nothing from what aws-lc-rs adds (post-quantum key exchange).
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFault::new("redis.tls.enabled", error.to_string()))?;
        let roots = Arc::new(self.roots(settings)?);
        let builder = if settings.skip_hostname {
            let verifier = AnyName::new(roots, provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            builder.with_webpki_verifier(webpki(roots, provider)?)
        };
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let (chain, key) = (chain_of(cert, settings)?, key_of(key, settings)?);
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let cert = shown(settings.cert_file.as_deref());
                    let reason = format!("the key does not fit the certificate in {cert}: {error}");
                    TlsFault::new(KEY, reason)
                })?
            }
            (Some(_), None) => return Err(alone(CERT, "key_file")),
            (None, Some(_)) => return Err(alone(KEY, "cert_file")),
            (None, None) => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    /// The authorities to trust.
    fn roots(&self, settings: &TlsSettings) -> Result<RootCertStore, TlsFault> {
        let mut roots = RootCertStore::empty();
        let Some(pem) = &self.ca else {
            // The roots of the system and not those of the crate webpki-roots: operators add the
            // authorities of their company there, and they are updated without a new tollgate.
            let native = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(native.certs);
            if added == 0 {
                let reason = "is unset, and the system has no authorities to trust; set it, or \
                              install ca-certificates";
                return Err(TlsFault::new(CA, reason.to_owned()));
            }
            return Ok(roots);
        };
        let bad = |reason: String| {
            let file = shown(settings.ca_file.as_deref());
            TlsFault::new(CA, format!("{file}: {reason}"))
        };
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("has no certificate; expected PEM".to_owned()));
        }
        Ok(roots)
    }
}

fn webpki(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsFault> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider);
    verifier.build().map_err(|error| TlsFault::new(CA, error.to_string()))
}

fn read(setting: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, TlsFault> {
    let Some(path) = path else { return Ok(None) };
    let failed =
        |error| TlsFault::new(setting, format!("{} cannot be read: {error}", path.display()));
    fs::read(path).map(Some).map_err(failed)
}

fn chain_of(pem: &[u8], settings: &TlsSettings) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let bad = |reason: &str| {
        TlsFault::new(CERT, format!("{}: {reason}", shown(settings.cert_file.as_deref())))
    };
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| bad(&error.to_string()))?;
    if chain.is_empty() { Err(bad("has no certificate; expected PEM")) } else { Ok(chain) }
}

fn key_of(pem: &[u8], settings: &TlsSettings) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let file = shown(settings.key_file.as_deref());
        let expected = "expected one in PEM, not encrypted: PKCS #8, PKCS #1 or SEC 1";
        TlsFault::new(KEY, format!("{file} has no private key ({error}); {expected}"))
    })
}

fn alone(setting: &'static str, other: &str) -> TlsFault {
    TlsFault::new(setting, format!("set redis.tls.{other} too"))
}

fn shown(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}
