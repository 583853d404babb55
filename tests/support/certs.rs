//! Certificates for tests: an authority of the test's own, and what it signs. Nothing is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
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

    /// A certificate for these names, addresses or URIs and its key, in `NAME.crt` and `NAME.key`.
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

    /// As [`Self::issue`], with so many days left.
    #[allow(clippy::disallowed_methods, reason = "a certificate ends by the clock of the day")]
    pub fn issue_for_days(&self, dir: &Path, name: &str, names: &[&str], days: u64) -> Pair {
        let end = SystemTime::now() + Duration::from_hours(24 * days);
        self.sign(dir, name, names, |params| params.not_after = end.into())
    }

    fn sign(
        &self,
        dir: &Path,
        name: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let (uris, others): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let others = others.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(others).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
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
