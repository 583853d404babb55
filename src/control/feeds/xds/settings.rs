//! The section `xds` of the settings.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::settings::{Headers, HostPort, Pairs, Reader, Setting, quoted, section};

/// The schemes that may stand before an address, and whether each means TLS.
const SCHEMES: [(&str, bool); 3] = [("dns:///", false), ("http://", false), ("https://", true)];

/// The address of the control plane.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The name, resolved at each attempt to connect, and the port.
    pub at: HostPort,
    /// It was written with `https://`.
    pub tls: bool,
}

impl Setting for Server {
    const EXPECTED: &'static str = "a host and port such as envoy-gateway:18001";

    fn parse(text: &str) -> Option<Self> {
        let scheme = SCHEMES.iter().find_map(|(scheme, tls)| {
            text.strip_prefix(scheme).map(|rest| (rest.trim_end_matches('/'), *tls))
        });
        let (address, tls) = scheme.unwrap_or((text, false));
        Some(Self { at: HostPort::parse(address)?, tls })
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }

    fn hint(text: &str) -> Option<String> {
        let bare = !text.is_empty() && !text.contains([':', '/']);
        bare.then(|| format!("add a port: {text}:18000"))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https://" } else { "" };
        write!(f, "{scheme}{}", self.at)
    }
}

section! {
    /// A control plane that sends the policies over xDS, such as Envoy Gateway.
    pub struct XdsSettings in "xds" {
        /// Host and port of the control plane; unset = none. `https://` before it means TLS.
        server: Option<Server> = "",
        /// Name by which the control plane finds the policies of this service.
        node_id: String = "default",
        /// What else the control plane is told about this service, such as `zone=a,team=edge`.
        node_metadata: Option<Pairs> = "",
        /// Headers of the stream, such as `authorization=TOKEN,x-zone=a`.
        headers: Option<Headers> = "",
        /// Maximum time to connect, over all addresses of the name, and as much again for TLS.
        connect_timeout: Duration = "5s" in Duration::from_millis(1)..,
        /// Idle time after which TCP asks whether the control plane is still there. It is gone
        /// after three questions without an answer.
        tcp_keepalive: Duration = "20s" in Duration::from_secs(1)..,
        /// Keep the last good response in Redis, and start by it while the control plane is away.
        keep_last: bool = "false",
        /// Largest response in bytes.
        max_message_bytes: usize = "67108864" in 1 << 10..=1 << 30,
    }
    with {
        /// TLS to the control plane.
        tls: XdsTlsSettings,
        /// Waits between attempts to connect.
        backoff: BackoffSettings,
    }
}

section! {
    /// TLS to the control plane. Files are read again at every connection.
    pub struct XdsTlsSettings in "xds.tls" {
        /// Connect over TLS.
        enabled: bool = "false",
        /// File with the certificates of the authorities to trust, PEM; unset = those of the
        /// system.
        ca_file: Option<PathBuf> = "",
        /// File with the certificate of tollgate and its chain, PEM.
        cert_file: Option<PathBuf> = "",
        /// File with the key of `cert_file`, PEM: PKCS #8, PKCS #1 or SEC 1.
        key_file: Option<PathBuf> = "",
        /// Name that the certificate of the control plane must have; unset = the host that is
        /// connected to.
        server_name: Option<String> = "",
    }
}

section! {
    /// Waits between attempts to connect to the control plane.
    pub struct BackoffSettings in "xds.backoff" {
        /// Wait after the first failure.
        initial: Duration = "1s" in Duration::from_millis(10)..,
        /// Longest wait.
        max: Duration = "1m" in Duration::from_millis(10)..,
        /// Growth from one wait to the next.
        factor: f64 = "2" in 1.0..,
        /// Spread each wait by half in both directions, so that replicas do not connect together.
        jitter: bool = "true",
    }
}

impl XdsSettings {
    /// True if there is a control plane.
    pub const fn is_set(&self) -> bool {
        self.server.is_some()
    }

    /// The rules that no type expresses.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        self.tls.enabled |= self.server.as_ref().is_some_and(|server| server.tls);
        let XdsTlsSettings { cert_file, key_file, server_name, .. } = &self.tls;
        let pair = [("cert_file", cert_file, "key_file"), ("key_file", key_file, "cert_file")];
        for (name, _, other) in pair
            .iter()
            .filter(|(_, file, _)| file.is_some() && (cert_file.is_none() || key_file.is_none()))
        {
            reader.refuse(&format!("xds.tls.{name}"), format!("set xds.tls.{other} too"));
        }
        if let Some(name) = server_name.as_ref().filter(|name| !is_name(name)) {
            reader.refuse("xds.tls.server_name", format!("{name:?} is no name of a server"));
        }
    }
}

fn is_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_may_have_a_scheme() {
        for (text, host, port, tls) in [
            ("envoy-gateway:18001", "envoy-gateway", 18001, false),
            ("dns:///envoy-gateway:18001", "envoy-gateway", 18001, false),
            ("http://10.0.0.1:80/", "10.0.0.1", 80, false),
            ("https://[::1]:18000", "::1", 18000, true),
        ] {
            let at = HostPort { host: host.to_owned(), port };
            assert_eq!(Server::parse(text), Some(Server { at, tls }), "{text}");
        }
        for text in ["", "envoy-gateway", "envoy-gateway:0", "ftp://a:1", "http://"] {
            assert_eq!(Server::parse(text), None, "{text}");
        }
    }
}
