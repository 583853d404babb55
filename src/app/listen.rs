//! The listeners and their addresses. Port 0 binds any free port. `[::]` means all addresses, of
//! IPv6 and of IPv4; where IPv6 is off, those of IPv4.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::error::AppError;
use crate::config::Settings;
use crate::edge::listener::tls::Tls;
use crate::edge::listener::tls::settings::ServerSettings;
use crate::telemetry::metrics::ListenerMetrics;
use crate::tls::TlsFault;

/// Bytes of a connection that the kernel keeps, in each direction. Linux doubles it for its own
/// needs. Without a bound it grows to megabytes for a peer that does not read, and a container pays
/// for them. Requests and answers are small, so that no caller needs more.
const SOCKET_BUFFER: u32 = 128 << 10;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// The bound listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) http: TcpListener,
    pub(super) metrics: Option<TcpListener>,
    pub(super) status: Option<TcpListener>,
    pub(super) debug: Option<TcpListener>,
    pub(super) addresses: Addresses,
}

/// The addresses of this process.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) http: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metrics: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) debug: Option<SocketAddr>,
}

impl Listeners {
    pub(super) fn bind(settings: &Settings) -> Result<Self, AppError> {
        let (grpc, grpc_at) = bind("gRPC", "grpc.listen", settings.grpc.listen)?;
        let (admin, admin_at) = bind("admin", "admin.listen", settings.admin.listen)?;
        let (http, http_at) = bind("HTTP", "http.listen", settings.http.listen)?;
        let optional = |listener, setting, address: Option<SocketAddr>| {
            let bound = address.map(|address| bind(listener, setting, address));
            Ok::<_, AppError>(bound.transpose()?.unzip())
        };
        let (metrics, metrics_at) =
            optional("metrics", "http.metrics_listen", settings.http.metrics_listen)?;
        let status = settings.http.status_listen.filter(|_| settings.http.status);
        let (status, status_at) = optional("status page", "http.status_listen", status)?;
        let (debug, debug_at) = optional("debug", "debug.listen", settings.debug.listen)?;
        let addresses = Addresses {
            grpc: grpc_at,
            admin: admin_at,
            http: http_at,
            metrics: metrics_at,
            status: status_at,
            debug: debug_at,
        };
        Ok(Self { grpc, admin, http, metrics, status, debug, addresses })
    }
}

/// A listener for gRPC, opened again where it was bound before.
pub(super) fn reopen_grpc(address: SocketAddr) -> Result<TcpListener, AppError> {
    Ok(bind("gRPC", "grpc.listen", address)?.0)
}

/// The TLS of the listeners; `None` for one in clear.
#[derive(Debug)]
pub(super) struct ListenersTls {
    pub(super) grpc: Option<Arc<Tls>>,
    pub(super) admin: Option<Arc<Tls>>,
    pub(super) http: Option<Arc<Tls>>,
}

impl ListenersTls {
    /// Reads the certificates. Blocks for that.
    pub(super) fn new(settings: &Settings) -> Result<Self, TlsFault> {
        let tls = |name, whose, protocol, settings: ServerSettings| {
            let tls = settings.is_set().then(|| Tls::new(name, whose, protocol, &settings));
            Ok::<_, TlsFault>(tls.transpose()?.map(Arc::new))
        };
        let Settings { grpc, admin, http, .. } = settings;
        Ok(Self {
            grpc: tls("grpc", "of the gRPC listener", b"h2", grpc.tls.server())?,
            admin: tls("admin", "of the admin listener", b"h2", admin.tls.server())?,
            http: tls("http", "of the HTTP listener", b"http/1.1", http.tls.server())?,
        })
    }

    /// Follows the files of all of them until `stop`.
    pub(super) async fn watch(&self, metrics: &ListenerMetrics, stop: &CancellationToken) {
        let watch = async |tls: &Option<Arc<Tls>>| {
            if let Some(tls) = tls {
                tls.watch(metrics, stop).await;
            }
        };
        tokio::join!(watch(&self.grpc), watch(&self.admin), watch(&self.http));
    }
}

fn bind(
    listener: &'static str,
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), AppError> {
    let refused =
        |source| AppError::Listen { listener, address: address.to_string(), setting, source };
    let bound = open(address).or_else(|error| match without_ipv6(address, &error) {
        Some(address) => open(address),
        None => Err(error),
    });
    let bound = bound.map_err(refused)?;
    let at = bound.local_addr().map_err(refused)?;
    Ok((bound, at))
}

/// The address to listen at instead, if there is no IPv6 here.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    // EAFNOSUPPORT of Linux, which has no kind of its own.
    const NO_FAMILY: i32 = 97;
    let off =
        error.raw_os_error() == Some(NO_FAMILY) || error.kind() == io::ErrorKind::AddrNotAvailable;
    (off && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

/// A listener at `address`, whose connections have buffers of a bounded size.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // The default is the system's.
        SockRef::from(&socket).set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of the process before it.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit both.
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let (listener, at) = bind("HTTP", "http.listen", "[::]:0".parse().unwrap()).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, at.port())).unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        let (_one, at) = bind("HTTP", "http.listen", "[::1]:0".parse().unwrap()).unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, at.port())).is_err());
    }

    #[test]
    fn without_ipv6_all_addresses_are_those_of_ipv4() {
        let instead = |address: &str, error: i32| {
            let address = address.parse().unwrap();
            let error = io::Error::from_raw_os_error(error);
            without_ipv6(address, &error).map(|address| address.to_string())
        };
        let (no_family, not_available, in_use) = (97, 99, 98);
        assert_eq!(instead("[::]:1", no_family).as_deref(), Some("0.0.0.0:1"));
        assert_eq!(instead("[::]:1", not_available).as_deref(), Some("0.0.0.0:1"));
        assert_eq!(instead("[::]:1", in_use), None);
        assert_eq!(instead("[::1]:1", not_available), None);
    }
}
