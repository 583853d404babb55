//! The names of a certificate and the time at which it ends.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The alternative names of a certificate: DNS names, URIs, addresses of mail and IP addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Names(Vec<String>);

impl Names {
    /// The names of `certificate`; none if it cannot be read. The common name is none: it says not
    /// of what kind it is.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = parse_x509_certificate(certificate) else { return Self::default() };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return Self::default() };
        Self(names.value.general_names.iter().filter_map(text).collect())
    }

    /// The names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn new(names: &[&str]) -> Self {
        Self(names.iter().map(ToString::to_string).collect())
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("no name") } else { f.write_str(&self.0.join(", ")) }
    }
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        // The case of a host counts for nothing.
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// The time at which the first of `chain` ends, in seconds since 1970.
pub(crate) fn end(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let ends = chain.iter().filter_map(|certificate| {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    ends.min()
}
