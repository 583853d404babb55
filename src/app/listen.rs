//! The three listeners and their addresses. Port 0 binds any free port.

use std::net::SocketAddr;

use serde::Serialize;
use tokio::net::TcpListener;

use super::error::AppError;
use crate::config::Settings;

/// The bound listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) http: TcpListener,
    pub(super) addresses: Addresses,
}

/// The addresses of this process.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Listeners {
    pub(super) async fn bind(settings: &Settings) -> Result<Self, AppError> {
        let (grpc, grpc_at) = bind("gRPC", "grpc.listen", settings.grpc.listen).await?;
        let (admin, admin_at) = bind("admin", "admin.listen", settings.admin.listen).await?;
        let (http, http_at) = bind("HTTP", "http.listen", settings.http.listen).await?;
        let addresses = Addresses { grpc: grpc_at, admin: admin_at, http: http_at };
        Ok(Self { grpc, admin, http, addresses })
    }
}

async fn bind(
    listener: &'static str,
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), AppError> {
    let refused =
        |source| AppError::Listen { listener, address: address.to_string(), setting, source };
    let bound = TcpListener::bind(address).await.map_err(refused)?;
    let at = bound.local_addr().map_err(refused)?;
    Ok((bound, at))
}
