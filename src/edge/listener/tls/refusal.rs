//! The reasons why a handshake failed, for one line in the log that says what to do.

use std::io;

use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
};

use super::super::refused::{Reason, Refusal};
use super::verifier::WrongName;

/// The reason behind `error`.
pub(super) fn of(error: &io::Error) -> Refusal {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None => Refusal::new(Reason::Closed, format!("the peer closed the connection ({error})")),
    }
}

fn of_tls(error: &Error) -> Refusal {
    let (reason, text) = match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let text = "the peer does not speak TLS; this listener serves nothing else";
            return Refusal::new(Reason::PlainText, text.to_owned());
        }
        Error::NoCertificatesPresented => (
            Reason::NoCertificate,
            "the peer has no certificate; it needs one of an authority in client_ca_file",
        ),
        Error::InvalidCertificate(error) => return of_certificate(error),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Which every client of TLS 1.2 sends, and none of an older one.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => (Reason::OldVersion, "the peer speaks no version of TLS from 1.2 on"),
        Error::PeerIncompatible(_) => {
            (Reason::Incompatible, "the peer and tollgate have no way of TLS in common")
        }
        Error::NoApplicationProtocol => {
            (Reason::Incompatible, "the peer wants another protocol (ALPN) than this listener has")
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => (
            Reason::RefusedByPeer,
            "the peer does not accept the certificate in cert_file; does it trust its authority, \
             and ask for a name that it has?",
        ),
        _ => (Reason::Failed, "TLS failed"),
    };
    Refusal::new(reason, format!("{text} ({error})"))
}

fn of_certificate(error: &CertificateError) -> Refusal {
    let (reason, text) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (Reason::Expired, "the certificate of the peer has expired")
        }
        CertificateError::UnknownIssuer => (
            Reason::UnknownAuthority,
            "the certificate of the peer is signed by no authority in client_ca_file",
        ),
        CertificateError::Other(OtherError(error)) if error.is::<WrongName>() => {
            let text = format!("{error}, and client_san has no such name");
            return Refusal::new(Reason::WrongName, text);
        }
        _ => (Reason::BadCertificate, "the certificate of the peer cannot be used"),
    };
    Refusal::new(reason, format!("{text} ({error})"))
}
