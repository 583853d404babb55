//! Files as the configuration of a client of rustls, for TLS 1.2 and 1.3.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};

use super::{Files, Paths, TlsFault, provider};

/// Makes a verifier of certificates of servers from the authorities to trust.
pub type Verifier = fn(Arc<RootCertStore>, Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier>;

/// The configuration that `files` make. Without `verifier` the chain and the name are verified.
///
/// # Errors
/// Fails with the setting and the reason if the files cannot be used.
pub fn client_config(files: &Files, verifier: Option<Verifier>) -> Result<ClientConfig, TlsFault> {
    let (provider, ca) = (provider(), files.ca_setting());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::new(ca, error.to_string()))?;
    let roots = files.roots()?.map_or_else(|| roots_of_the_system(ca), Ok)?;
    let builder = match verifier {
        Some(verifier) => {
            let verifier = verifier(Arc::new(roots), provider);
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        None => builder.with_webpki_verifier(webpki(roots, provider, ca)?),
    };
    match files.pair()? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| files.misfit(&error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Reads the files at `paths` for a client that speaks `alpn`, off the async threads. `section`
/// names the settings, should reading itself fail.
///
/// # Errors
/// As [`client_config`].
pub(crate) async fn read_client_config(
    paths: Arc<Paths>,
    alpn: &'static [u8],
    section: &'static str,
) -> Result<ClientConfig, TlsFault> {
    let read = tokio::task::spawn_blocking(move || {
        let mut config = client_config(&Files::read(&paths)?, None)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    });
    read.await.unwrap_or_else(|error| Err(TlsFault::new(section, error.to_string())))
}

/// The authorities of the system and not those of the crate webpki-roots: operators add the
/// authorities of their company there, and they are updated without a new tollgate.
fn roots_of_the_system(ca: &'static str) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(native.certs);
    if added == 0 {
        let reason = "is unset, and the system has no authorities to trust; set it, or install \
                      ca-certificates";
        return Err(TlsFault::new(ca, reason.to_owned()));
    }
    Ok(roots)
}

fn webpki(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    ca: &'static str,
) -> Result<Arc<WebPkiServerVerifier>, TlsFault> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| TlsFault::new(ca, error.to_string()))
}
