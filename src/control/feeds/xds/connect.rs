//! A connection to the control plane: name, TCP, TLS, HTTP/2.
//!
//! Everything is made anew at each attempt: the name is resolved, and the files of TLS are read,
//! because both change while tollgate runs.
//!
//! No HTTP/2 PINGs: servers of gRPC in Go end a connection whose client sends them more often than
//! every five minutes. TCP finds out that a peer is gone.

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::settings::{Server, XdsSettings, XdsTlsSettings};
use crate::outward::{Io, chain};
use crate::tls::{Paths, PemPath, TlsFault, read_client_config};

/// The questions of TCP without an answer after which the peer is gone.
const KEEPALIVE_PROBES: u32 = 3;

/// The time between two of them, as a part of the idle time before the first.
const PROBES_IN_IDLE: u32 = 4;

const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// Connects to `server`.
///
/// # Errors
/// Fails with a reason for the operator.
pub(super) async fn connect(server: &Server, settings: &XdsSettings) -> Result<Channel, String> {
    let tls = if settings.tls.enabled {
        let read = read_tls(settings.tls.clone()).await;
        Some(read.map_err(|fault| fault.to_string())?)
    } else {
        None
    };
    let address = &server.at;
    let tcp = tcp(server, settings).await.map_err(|error| format!("{address}: {error}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let socket: Io = match tls {
        None => TokioIo::new(Box::new(tcp)),
        Some(config) => {
            let name = settings.tls.server_name.as_ref().unwrap_or(&address.host);
            let shaken = timeout(settings.connect_timeout, shake_hands(tcp, config, name)).await;
            let shaken = shaken.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            TokioIo::new(Box::new(shaken.map_err(|error| format!("{address}: TLS: {error}"))?))
        }
    };
    let origin =
        format!("{scheme}://{address}").parse::<Uri>().map_err(|error| error.to_string())?;
    let endpoint = Endpoint::from(uri(server)?).origin(origin).user_agent(USER_AGENT);
    let endpoint = endpoint.map_err(|error| chain(&error))?;
    let connected = endpoint.connect_with_connector(Once(Some(socket))).await;
    connected.map_err(|error| format!("{address}: {}", chain(&error)))
}

/// The address as the connector of hyper has it.
fn uri(server: &Server) -> Result<Uri, String> {
    format!("http://{}", server.at).parse().map_err(|error| format!("{}: {error}", server.at))
}

/// Connects to the first address of the name that answers.
async fn tcp(server: &Server, settings: &XdsSettings) -> Result<TcpStream, String> {
    let (idle, between) = keepalive(settings.tcp_keepalive);
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(settings.connect_timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(idle));
    connector.set_keepalive_interval(Some(between));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    // While an answer of ours is under way, TCP asks nothing but repeats it, for a quarter of an
    // hour by default.
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(idle + between * KEEPALIVE_PROBES));
    // The resolver has no end of its own.
    let connected = timeout(settings.connect_timeout * 2, connector.call(uri(server)?)).await;
    let connected = connected.map_err(|_| "no address or no answer in time".to_owned())?;
    connected.map(TokioIo::into_inner).map_err(|error| chain(&error))
}

/// The idle time and the time between questions, in whole seconds as TCP has them.
fn keepalive(idle: Duration) -> (Duration, Duration) {
    let seconds = |duration: Duration| Duration::from_secs(duration.as_secs().max(1));
    (seconds(idle), seconds(idle / PROBES_IN_IDLE))
}

async fn read_tls(settings: XdsTlsSettings) -> Result<ClientConfig, TlsFault> {
    let file = |setting, path: &Option<_>| PemPath { setting, path: path.clone() };
    let paths = Paths {
        ca: file("xds.tls.ca_file", &settings.ca_file),
        cert: file("xds.tls.cert_file", &settings.cert_file),
        key: file("xds.tls.key_file", &settings.key_file),
    };
    read_client_config(Arc::new(paths), b"h2", "xds.tls").await
}

async fn shake_hands(
    stream: TcpStream,
    config: ClientConfig,
    name: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let server = ServerName::try_from(name.to_owned()).map_err(|_| {
        format!("{name:?} is no name that a certificate can have; set xds.tls.server_name")
    })?;
    let connected = TlsConnector::from(Arc::new(config)).connect(server, stream).await;
    connected.map_err(|error| error.to_string())
}

/// A connector that has its stream already, for one connection.
struct Once(Option<Io>);

impl Service<Uri> for Once {
    type Response = Io;
    type Error = io::Error;
    type Future = Ready<io::Result<Io>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::other("the connection has ended")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_has_whole_seconds() {
        let of = |millis| keepalive(Duration::from_millis(millis));
        assert_eq!(of(20_000), (Duration::from_secs(20), Duration::from_secs(5)));
        assert_eq!(of(1_500), (Duration::from_secs(1), Duration::from_secs(1)));
    }
}
