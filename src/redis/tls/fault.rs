//! Errors of TLS, with what an operator can do about them.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// The error of a handshake.
pub(super) fn handshake(error: io::Error) -> io::Error {
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
        let text = "the server closed the connection during the TLS handshake; does it serve TLS \
                    on this port? If not, write redis://";
        return io::Error::new(error.kind(), text);
    }
    explain(error)
}

/// The error of a stream: one of TLS gets a hint, any other stays as it is.
pub(in crate::redis) fn explain(error: io::Error) -> io::Error {
    let text = error.get_ref().and_then(|inner| inner.downcast_ref()).map(text);
    text.map_or(error, |text| io::Error::new(io::ErrorKind::InvalidData, text))
}

fn text(error: &Error) -> String {
    let hint = match error {
        Error::InvalidCertificate(fault) => return certificate(fault),
        Error::InvalidMessage(_) => {
            "the server does not speak TLS on this port; write redis://, or connect to its TLS port"
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => {
            "Redis wants a certificate of tollgate (tls-auth-clients); set redis.tls.cert_file \
             and redis.tls.key_file"
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => {
            "Redis does not accept the certificate of tollgate (redis.tls.cert_file); it must be \
             signed by the tls-ca-cert-file of Redis and be in date"
        }
        _ => "TLS failed",
    };
    format!("{hint} ({error})")
}

fn certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "the certificate of Redis is signed by an authority that is not trusted; set \
             redis.tls.ca_file to the file of that authority"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the certificate of Redis is for {}, not for {}; connect by a name that it has, set \
             redis.tls.server_name to one, or set redis.tls.skip_hostname: true",
            names(presented),
            expected.to_str(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of Redis has expired; renew it ({fault})")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of Redis is not valid yet; check the clocks ({fault})")
        }
        _ => format!("the certificate of Redis cannot be used ({fault})"),
    }
}

/// The names that a certificate has. The library wraps each in its kind: `DnsName("host")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let names = presented.iter().map(bare).collect::<Vec<_>>();
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}
