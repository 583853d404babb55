//! The gRPC server of one core: the rate-limit service, health and reflection over connections it is handed.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder as Reflection;

use super::oversized::Oversized;
use super::pb;
use super::pb::rate_limit_service_server::{RateLimitServiceServer, SERVICE_NAME};
use super::rls::Rls;
use crate::limiter::Shared;
use crate::store::LimitStore;

/// Whom health is told of: the process, the reference's name for it, and the service.
pub const HEALTH_NAMES: [&str; 3] = ["", "ratelimit", SERVICE_NAME];

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const OLDER_REFLECTION: &str = "grpc.reflection.v1alpha.ServerReflection";

/// How long connections live and how large a message may be.
#[derive(Clone, Debug)]
pub struct Connections {
    /// The largest message in bytes; a larger one is over its limit.
    pub message_bytes: usize,
    /// After this a connection is told to go elsewhere, so that load spreads over new replicas; none: never.
    pub max_age: Option<Duration>,
    /// How often an idle peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
}

impl Connections {
    fn builder(&self) -> Server {
        let server = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(self.keepalive_interval))
            .http2_keepalive_timeout(Some(self.keepalive_timeout));
        match self.max_age {
            // Without a grace period: with one, tonic 0.14 does not ask the peer to go but cuts it off, calls and all.
            Some(age) => server.max_connection_age(age),
            None => server,
        }
    }
}

/// Serves until `stop`, then finishes the calls under way.
pub async fn serve<S: LimitStore>(
    incoming: impl Stream<Item = io::Result<TcpStream>> + Send,
    rls: Rls<S>,
    shared: Arc<Shared>,
    health: HealthReporter,
    connections: &Connections,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let service =
        RateLimitServiceServer::new(rls).max_decoding_message_size(connections.message_bytes);
    let router = connections.builder().add_service(Oversized::new(service, shared));
    serve_router(router, &[SERVICE_NAME], incoming, health, stop).await
}

/// The admin listener, with the services of `routes`, called `names`, until `stop`.
pub async fn serve_admin(
    incoming: impl Stream<Item = io::Result<TcpStream>> + Send,
    routes: Routes,
    names: &[&str],
    health: HealthReporter,
    connections: &Connections,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let at_once = |stream: TcpStream| stream.set_nodelay(true).map(|()| stream);
    let incoming = incoming.map(move |accepted| accepted.and_then(at_once));
    let mut server = connections.builder();
    serve_router(server.add_routes(routes), names, incoming, health, stop).await
}

async fn serve_router(
    router: Router,
    names: &[&str],
    incoming: impl Stream<Item = io::Result<TcpStream>> + Send,
    health: HealthReporter,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let health = HealthServer::new(HealthService::from_health_reporter(health));
    let router = router
        .add_service(health)
        .add_service(reflection(names).with_service_name(REFLECTION).build_v1()?)
        .add_service(reflection(names).with_service_name(OLDER_REFLECTION).build_v1alpha()?);
    Ok(router.serve_with_incoming_shutdown(incoming, stop).await?)
}

/// `grpcurl list` and `describe`, also for clients that speak only the older reflection. Listed are the services of `names`
/// and health.
fn reflection(names: &[&str]) -> Reflection<'static> {
    let described = Reflection::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that grpcurl shows the violations of a bad request, not their bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(HEALTH);
    names.iter().fold(described, |described, name| described.with_service_name(*name))
}

/// Why a gRPC server stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors do not describe what is served.
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}
