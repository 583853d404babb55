//! The files of `redis.tls` as a configuration of rustls.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};

use super::name::AnyName;
use super::settings::TlsSettings;
use crate::tls::{Files, Paths, PemPath, TlsFault, provider};

const CA: &str = "redis.tls.ca_file";

/// The files of `settings`.
pub(super) fn paths(settings: &TlsSettings) -> Paths {
    let file = |setting, path: &Option<_>| PemPath { setting, path: path.clone() };
    Paths {
        ca: file(CA, &settings.ca_file),
        cert: file("redis.tls.cert_file", &settings.cert_file),
        key: file("redis.tls.key_file", &settings.key_file),
    }
}

/// The configuration that `files` make.
pub(super) fn config(files: &Files, settings: &TlsSettings) -> Result<ClientConfig, TlsFault> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::new("redis.tls.enabled", error.to_string()))?;
    let roots = Arc::new(files.roots()?.map_or_else(roots_of_the_system, Ok)?);
    let builder = if settings.skip_hostname {
        let verifier = AnyName::new(roots, provider);
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder.with_webpki_verifier(webpki(roots, provider)?)
    };
    match files.pair()? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| files.misfit(&error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The authorities of the system and not those of the crate webpki-roots: operators add the
/// authorities of their company there, and they are updated without a new tollgate.
fn roots_of_the_system() -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(native.certs);
    if added == 0 {
        let reason = "is unset, and the system has no authorities to trust; set it, or install \
                      ca-certificates";
        return Err(TlsFault::new(CA, reason.to_owned()));
    }
    Ok(roots)
}

fn webpki(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsFault> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider);
    verifier.build().map_err(|error| TlsFault::new(CA, error.to_string()))
}
