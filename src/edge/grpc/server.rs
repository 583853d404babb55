//! The gRPC servers: the services of the gRPC listener and of the admin listener.
//!
//! `ShouldRateLimit` bypasses tonic's layers (routing, boxed futures, message streams), because
//! they cost about as much as a decision. tonic serves all other calls.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder as Reflection;

use super::caller::{Caller, Edge, other};
use super::callers::Callers;
use super::holds::Holds;
use super::lean;
use super::rls::Rls;
use super::settings::Engine;
use crate::edge::admin::auth::Guarded;
use crate::edge::listener::Bounds;
use crate::edge::listener::acceptor::{Accepted, Acceptor};
use crate::edge::listener::connection::serve_http2;
use crate::edge::pb;
use crate::edge::pb::rate_limit_service_server::SERVICE_NAME;
use crate::edge::pb::tollgate::v1::hold_service_server::{
    HoldServiceServer, SERVICE_NAME as HOLD_SERVICE_NAME,
};
use crate::store::LimitStore;

/// The service names of the health service: the process, the name that envoyproxy/ratelimit uses,
/// and the services.
pub const HEALTH_NAMES: [&str; 4] = ["", "ratelimit", SERVICE_NAME, HOLD_SERVICE_NAME];

const HEALTH: &str = "grpc.health.v1.Health";

/// Bytes of a message to health or reflection, which have a name in it. tonic takes memory for a
/// whole message at its first bytes, and by default that may be 4 MiB.
const COMMON_MESSAGE_BYTES: usize = 16 << 10;

const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const OLDER_REFLECTION: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Serves the connections of `incoming` until `stop`, then finishes the calls in flight.
pub async fn serve<S: LimitStore>(
    mut incoming: impl Stream<Item = Accepted> + Unpin,
    rls: Rls<S>,
    callers: Arc<Callers>,
    health: HealthReporter,
    message_bytes: usize,
    (engine, bounds): (Engine, &Bounds),
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let rls = Arc::new(rls);
    let holds = HoldServiceServer::new(Holds(Arc::clone(&rls)));
    let holds = Routes::new(holds.max_decoding_message_size(message_bytes));
    let edge = Arc::new(Edge {
        rls,
        callers,
        others: add_common(holds, &[SERVICE_NAME, HOLD_SERVICE_NAME], health)?.prepare(),
        message_bytes,
        message_timeout: bounds.listener.message_timeout,
    });
    let open = TaskTracker::new();
    while let Some(Some(accepted)) = stop.run_until_cancelled(incoming.next()).await {
        match accepted.attach() {
            Ok(connection) => {
                // Each poll of a token locks it: a token of its own is not shared between cores.
                let (bounds, stop) = (bounds.clone(), stop.child_token());
                let caller = Arc::new(Caller {
                    edge: Arc::clone(&edge),
                    askable: edge.callers.askable(&connection.peer),
                    memory: connection.memory.clone(),
                });
                match engine {
                    Engine::Lean => open.spawn(async move {
                        lean::serve(connection, &bounds, caller, &stop).await;
                    }),
                    Engine::Hyper => open.spawn(async move {
                        let answer = move |request| Arc::clone(&caller).answer(request);
                        serve_http2(connection, &bounds, answer, &stop).await;
                    }),
                };
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
        let memory = connection.memory.clone();
        let answer = move |mut request: Request<Incoming>| {
            let (routes, guard, peer) = (routes.clone(), guard.clone(), peer.clone());
            let memory = memory.clone();
            async move {
                let path = request.uri().path();
                match guard.admit(path, request.headers(), &peer).await {
                    Ok(who) => _ = who.map(|who| request.extensions_mut().insert(who)),
                    Err(status) => return status.into_http(),
                }
                other(request, routes, &memory).await
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
    let newer = reflection(names).with_service_name(REFLECTION).build_v1()?;
    let older = reflection(names).with_service_name(OLDER_REFLECTION).build_v1alpha()?;
    Ok(routes
        .add_service(health.max_decoding_message_size(COMMON_MESSAGE_BYTES))
        .add_service(newer.max_decoding_message_size(COMMON_MESSAGE_BYTES))
        .add_service(older.max_decoding_message_size(COMMON_MESSAGE_BYTES)))
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
