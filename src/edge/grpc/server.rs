//! The gRPC listeners: which services each has, over connections it is handed.
//!
//! `ShouldRateLimit` goes past tonic's layers (routing, boxed futures, streams of messages), which cost about as much as
//! a decision; everything else is served by them.

use std::future::Future;
use std::io;
use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder as Reflection;

use super::connections::Connections;
use super::rls::Rls;
use super::unary::Reply;
use crate::edge::pb;
use crate::edge::pb::rate_limit_service_server::SERVICE_NAME;
use crate::store::LimitStore;

/// Whom health is told of: the process, the reference's name for it, and the service.
pub const HEALTH_NAMES: [&str; 3] = ["", "ratelimit", SERVICE_NAME];

/// The path of the call for a decision.
const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const OLDER_REFLECTION: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Serves until `stop`, then finishes the calls under way.
pub async fn serve<S: LimitStore>(
    incoming: impl Stream<Item = io::Result<TcpStream>> + Unpin,
    rls: Rls<S>,
    health: HealthReporter,
    connections: &Connections,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let edge = Arc::new(Edge {
        rls,
        others: add_common(Routes::default(), &[SERVICE_NAME], health)?.prepare(),
        message_bytes: connections.message_bytes,
    });
    // hyper and tokio move the future of a call several times. Its box is all that moves then.
    let answer = move |request| Box::pin(Arc::clone(&edge).answer(request));
    connections.serve(incoming, answer, stop).await;
    Ok(())
}

/// The services of the gRPC listener: the one call that every decision is, and all others.
#[derive(Debug)]
struct Edge<S> {
    rls: Rls<S>,
    others: Routes,
    message_bytes: usize,
}

impl<S: LimitStore> Edge<S> {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        if request.uri().path() == SHOULD_RATE_LIMIT && request.method() == Method::POST {
            return self.rls.call(request, self.message_bytes).await;
        }
        let Ok(response) = self.others.clone().call(request).await;
        response.map(Reply::Other)
    }
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
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(connections.keepalive_interval))
        .http2_keepalive_timeout(Some(connections.keepalive_timeout));
    if let Some(age) = connections.max_age {
        // Without a grace period: with one, tonic 0.14 does not ask the peer to go but cuts it off, calls and all.
        server = server.max_connection_age(age);
    }
    let routes = add_common(routes, names, health)?;
    Ok(server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await?)
}

/// `routes`, health, and reflection of `names` and health.
fn add_common(
    routes: Routes,
    names: &[&str],
    health: HealthReporter,
) -> Result<Routes, ServeError> {
    let health = HealthServer::new(HealthService::from_health_reporter(health));
    Ok(routes
        .add_service(health)
        .add_service(reflection(names).with_service_name(REFLECTION).build_v1()?)
        .add_service(reflection(names).with_service_name(OLDER_REFLECTION).build_v1alpha()?))
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
