//! The service to call: its address, TLS, and the headers of a request.

use std::error::Error;
use std::sync::Arc;

use http::Uri;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Fault;
use super::line::Socket;
use super::requests::Requests;
use crate::tls_args::{TlsArgs, cause};

const ALPN: &[u8] = b"h2";

/// The service.
pub(crate) struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    requests: Requests,
}

/// The reason why there is no target.
pub(crate) enum BadTarget {
    Url(String),
    Tls(String),
}

impl Target {
    /// The service at `url`.
    pub(crate) fn new(url: &str, tls: &TlsArgs) -> Result<Self, BadTarget> {
        let uri: Uri = url.parse().map_err(|error| BadTarget::Url(cause(&error)))?;
        let bad = |reason: &str| BadTarget::Url(reason.to_owned());
        let (scheme, port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            _ => return Err(bad("the scheme is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match tls.config(&uri).map_err(BadTarget::Tls)? {
            None => None,
            Some(mut config) => {
                config.alpn_protocols = vec![ALPN.to_vec()];
                let name = tls.server_name().unwrap_or(&host).to_owned();
                let name = ServerName::try_from(name);
                let name = name.map_err(|error| BadTarget::Tls(format!("{error}")))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let requests = Requests::new(scheme, authority.as_str());
        Ok(Self { host, port: authority.port_u16().unwrap_or(port), tls, requests })
    }

    /// The header blocks of the requests of a new connection.
    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Socket>, Fault> {
        let failed = |error: &(dyn Error + 'static)| Fault::Socket(cause(error));
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| failed(&error))?;
        tcp.set_nodelay(true).map_err(|error| failed(&error))?;
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(tcp)) };
        let tls = connector.connect(name.clone(), tcp).await.map_err(|error| failed(&error))?;
        if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Fault::Socket("it offers no HTTP/2 over TLS (ALPN h2)".to_owned()));
        }
        Ok(Box::new(tls))
    }
}
