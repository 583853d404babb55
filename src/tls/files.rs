//! The PEM files of one section of settings.

use std::path::PathBuf;
use std::{fmt, fs};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsFault;

/// A file, and the setting that names it.
#[derive(Clone, Debug)]
pub struct PemPath {
    /// The setting.
    pub setting: &'static str,
    /// The file, if it is set.
    pub path: Option<PathBuf>,
}

/// The files of a section.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The authorities to trust.
    pub ca: PemPath,
    /// The certificate of tollgate and its chain.
    pub cert: PemPath,
    /// The key of that certificate.
    pub key: PemPath,
}

/// The contents of the files; `None` where no file is set.
#[derive(Eq, PartialEq)]
pub struct Files {
    paths: PathsRead,
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Zeroizing<Vec<u8>>>,
}

/// Without the key.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// The settings and names of the files, for faults.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PathsRead {
    ca: (&'static str, String),
    cert: (&'static str, String),
    key: (&'static str, String),
}

/// A certificate with its chain, and its key.
pub(crate) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    /// Fails if one cannot be read.
    pub fn read(paths: &Paths) -> Result<Self, TlsFault> {
        let named = |file: &PemPath| (file.setting, shown(file));
        let (ca, cert, key) = (read(&paths.ca)?, read(&paths.cert)?, read(&paths.key)?);
        let paths =
            PathsRead { ca: named(&paths.ca), cert: named(&paths.cert), key: named(&paths.key) };
        Ok(Self { paths, ca, cert, key: key.map(Zeroizing::new) })
    }

    /// The authorities to trust; `None` without a file.
    ///
    /// # Errors
    /// Fails if the file has no certificate or one that is damaged.
    pub(crate) fn roots(&self) -> Result<Option<RootCertStore>, TlsFault> {
        let Some(pem) = &self.ca else { return Ok(None) };
        let certificates = certificates(pem, &self.paths.ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| bad(&self.paths.ca, &error.to_string()))?;
        }
        Ok(Some(roots))
    }

    /// The setting that names the authorities.
    pub(super) const fn ca_setting(&self) -> &'static str {
        self.paths.ca.0
    }

    /// The certificates of the authorities; none without a file.
    pub(crate) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        self.ca.as_ref().map_or(Ok(Vec::new()), |pem| certificates(pem, &self.paths.ca))
    }

    /// The certificate and the key; `None` without both files.
    ///
    /// # Errors
    /// Fails if one is set alone, or has not what it should have.
    pub(crate) fn pair(&self) -> Result<Option<Pair>, TlsFault> {
        let alone = |(setting, _): &(&'static str, String), (other, _): &(&str, String)| {
            TlsFault::new(setting, format!("set {other} too"))
        };
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(alone(&self.paths.cert, &self.paths.key)),
            (None, Some(_)) => Err(alone(&self.paths.key, &self.paths.cert)),
            (Some(cert), Some(key)) => {
                Ok(Some((certificates(cert, &self.paths.cert)?, self.private_key(key)?)))
            }
        }
    }

    /// The fault of a key that is not that of the certificate.
    pub(crate) fn misfit(&self, error: &rustls::Error) -> TlsFault {
        let (setting, cert) = (self.paths.key.0, &self.paths.cert.1);
        let reason = format!("the key does not fit the certificate in {cert}: {error}");
        TlsFault::new(setting, reason)
    }

    fn private_key(&self, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
        PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
            let (setting, file) = &self.paths.key;
            let expected = "expected one in PEM, not encrypted: PKCS #8, PKCS #1 or SEC 1";
            TlsFault::new(setting, format!("{file} has no private key ({error}); {expected}"))
        })
    }
}

fn certificates(
    pem: &[u8],
    file: &(&'static str, String),
) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| bad(file, &error.to_string()))?;
    if read.is_empty() { Err(bad(file, "has no certificate; expected PEM")) } else { Ok(read) }
}

fn bad((setting, file): &(&'static str, String), reason: &str) -> TlsFault {
    TlsFault::new(setting, format!("{file}: {reason}"))
}

fn read(file: &PemPath) -> Result<Option<Vec<u8>>, TlsFault> {
    let Some(path) = &file.path else { return Ok(None) };
    let failed =
        |error| TlsFault::new(file.setting, format!("{} cannot be read: {error}", path.display()));
    fs::read(path).map(Some).map_err(failed)
}

fn shown(file: &PemPath) -> String {
    file.path.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
}
