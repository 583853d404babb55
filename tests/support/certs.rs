//! Certificates for tests: an authority of the test's own, and what it signs. Nothing is kept.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate, in a file.
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        write(path.as_ref(), &self.0.pem())
    }

    /// A certificate for these names or addresses and its key, in `NAME.crt` and `NAME.key`.
    pub fn issue(&self, dir: &Path, name: &str, names: &[&str]) -> Pair {
        self.sign(dir, name, names, |_| {})
    }

    /// As [`Self::issue`], of a time that is over.
    pub fn issue_expired(&self, dir: &Path, name: &str, names: &[&str]) -> Pair {
        self.sign(dir, name, names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    fn sign(
        &self,
        dir: &Path,
        name: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair {
            cert: write(&dir.join(format!("{name}.crt")), &certificate.pem()),
            key: write(&dir.join(format!("{name}.key")), &key.serialize_pem()),
        }
    }
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Writes as Kubernetes swaps files: readers see the old or the new text.
pub fn write(path: &Path, text: &str) -> PathBuf {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
    path.to_owned()
}
