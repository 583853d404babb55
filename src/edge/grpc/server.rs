//! The gRPC servers: the services of the gRPC listener and of the admin listener.
//!
//! `ShouldRateLimit` bypasses tonic's layers (routing, boxed futures, message streams), because
//! they cost about as much as a decision. tonic serves all other calls.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder as Reflection;

use super::callers::{Askable, Callers};
use super::rls::{Head, Rls};
use super::unary::Reply;
use crate::edge::admin::auth::Guarded;
use crate::edge::listener::Bounds;
use crate::edge::listener::acceptor::{Accepted, Acceptor};
use crate::edge::listener::connection::serve_http2;
use crate::edge::pb;
use crate::edge::pb::rate_limit_service_server::SERVICE_NAME;
use crate::store::LimitStore;

/// The service names of the health service: the process, the name that envoyproxy/ratelimit uses,
/// and the service.
pub const HEALTH_NAMES: [&str; 3] = ["", "ratelimit", SERVICE_NAME];

/// The path of `ShouldRateLimit`.
const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const OLDER_REFLECTION: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Serves the connections of `incoming` until `stop`, then finishes the calls in flight.
pub async fn serve<S: LimitStore>(
    mut incoming: impl Stream<Item = Accepted> + Unpin,
    rls: Rls<S>,
    callers: Arc<Callers>,
    health: HealthReporter,
    message_bytes: usize,
    bounds: &Bounds,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let edge = Arc::new(Edge {
        rls,
        callers,
        others: add_common(Routes::default(), &[SERVICE_NAME], health)?.prepare(),
        message_bytes,
        message_timeout: bounds.listener.message_timeout,
    });
    let open = TaskTracker::new();
    while let Some(Some(accepted)) = stop.run_until_cancelled(incoming.next()).await {
        match accepted.attach() {
            Ok(connection) => {
                // Each poll of a token locks it: a token of its own is not shared between cores.
                let (bounds, stop) = (bounds.clone(), stop.child_token());
                let (edge, askable) = (Arc::clone(&edge), edge.callers.askable(&connection.peer));
                let answer = move |request| Arc::clone(&edge).answer(request, askable.clone());
                open.spawn(async move { serve_http2(connection, &bounds, answer, &stop).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be moved to its core");
            }
        }
    }
    open.close();
    open.wait().await;
    Ok(())
}

/// The services of the gRPC listener: `ShouldRateLimit` and all others.
#[derive(Debug)]
struct Edge<S> {
    rls: Rls<S>,
    callers: Arc<Callers>,
    others: Routes,
    message_bytes: usize,
    message_timeout: Duration,
}

impl<S: LimitStore> Edge<S> {
    /// The future is boxed, because hyper and tokio move it several times. That of a decision has
    /// no head of a request and no call of tonic in it, so it is small.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        askable: Option<Arc<Askable>>,
    ) -> BoxFuture<'static, Response<Reply>> {
        if request.uri().path() == SHOULD_RATE_LIMIT && request.method() == Method::POST {
            let head = Head::of(request.headers());
            let body = request.into_body();
            return Box::pin(async move {
                let bounds = (self.message_bytes, self.message_timeout);
                self.rls.call(head, body, bounds, askable.as_deref()).await
            });
        }
        Box::pin(async move {
            let Ok(response) = self.others.clone().call(request).await;
            response.map(Reply::Other)
        })
    }
}

/// Serves guarded services, whose names are `names`, on the connections of `acceptor` until `stop`,
/// then finishes the calls in flight.
pub async fn serve_admin(
    mut acceptor: Acceptor,
    Guarded { routes, guard }: Guarded,
    names: &[&str],
    health: HealthReporter,
    bounds: Bounds,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let routes = add_common(routes, names, health)?.prepare();
    let open = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(acceptor.accept()).await {
        let Ok(connection) = accepted.attach() else { continue };
        let (routes, bounds, stop) = (routes.clone(), bounds.clone(), stop.clone());
        let (guard, peer) = (guard.clone(), connection.peer.clone());
        let answer = move |mut request: Request<Incoming>| {
            let (mut routes, guard, peer) = (routes.clone(), guard.clone(), peer.clone());
            async move {
                let path = request.uri().path();
                match guard.admit(path, request.headers(), &peer).await {
                    Ok(who) => _ = who.map(|who| request.extensions_mut().insert(who)),
                    Err(status) => return status.into_http(),
                }
                let Ok(response) = routes.call(request).await;
                response
            }
        };
        open.spawn(async move { serve_http2(connection, &bounds, answer, &stop).await });
    }
    open.close();
    open.wait().await;
    Ok(())
}

/// Adds health and reflection to `routes`. Reflection lists `names` and health.
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

/// The reflection service for `grpcurl list` and `describe`. Lists `names` and health.
fn reflection(names: &[&str]) -> Reflection<'static> {
    let described = Reflection::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Lets grpcurl decode the violations of a bad request.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(HEALTH);
    names.iter().fold(described, |described, name| described.with_service_name(*name))
}

/// The reason why a gRPC server failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file descriptors do not describe the services.
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}
