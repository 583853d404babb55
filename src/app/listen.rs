//! The listeners and their addresses. Port 0 binds any free port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
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
}

impl Listeners {
    pub(super) fn bind(settings: &Settings) -> Result<Self, AppError> {
        let (grpc, grpc_at) = bind("gRPC", "grpc.listen", settings.grpc.listen)?;
        let (admin, admin_at) = bind("admin", "admin.listen", settings.admin.listen)?;
        let (http, http_at) = bind("HTTP", "http.listen", settings.http.listen)?;
        let (metrics, metrics_at) = match settings.http.metrics_listen {
            Some(address) => {
                let (bound, at) = bind("metrics", "http.metrics_listen", address)?;
                (Some(bound), Some(at))
            }
            None => (None, None),
        };
        let addresses =
            Addresses { grpc: grpc_at, admin: admin_at, http: http_at, metrics: metrics_at };
        Ok(Self { grpc, admin, http, metrics, addresses })
    }
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
    let bound = open(address).map_err(refused)?;
    let at = bound.local_addr().map_err(refused)?;
    Ok((bound, at))
}

/// A listener at `address`, whose connections have buffers of a bounded size.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the connections of the process before it.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit both.
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
