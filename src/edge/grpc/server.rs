//! The gRPC servers: the services of the gRPC listener and of the admin listener.
//!
//! `ShouldRateLimit` bypasses tonic's layers (routing, boxed futures, message streams), because
//! they cost about as much as a decision. tonic serves all other calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Incoming};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder as Reflection;

use super::callers::{Askable, Callers};
use super::holds::{Asker, Holds};
use super::lean;
use super::rls::Rls;
use super::settings::Engine;
use super::unary::{self, Reply};
use crate::edge::admin::auth::Guarded;
use crate::edge::listener::Bounds;
use crate::edge::listener::acceptor::{Accepted, Acceptor};
use crate::edge::listener::connection::serve_http2;
use crate::edge::listener::memory::{HeldAnswer, HeldRequest, Memory, NoRoom};
use crate::edge::pb;
use crate::edge::pb::rate_limit_service_server::SERVICE_NAME;
use crate::edge::pb::tollgate::v1::hold_service_server::{
    HoldServiceServer, SERVICE_NAME as HOLD_SERVICE_NAME,
};
use crate::store::LimitStore;

/// The service names of the health service: the process, the name that envoyproxy/ratelimit uses,
/// and the services.
pub const HEALTH_NAMES: [&str; 4] = ["", "ratelimit", SERVICE_NAME, HOLD_SERVICE_NAME];

/// The path of `ShouldRateLimit`.
pub(super) const SHOULD_RATE_LIMIT: &str =
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

const HEALTH: &str = "grpc.health.v1.Health";
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// Bytes of a message to health or reflection, which have a name in it. tonic takes memory for a
/// whole message at its first bytes, and by default that may be 4 MiB.
const COMMON_MESSAGE_BYTES: usize = 16 << 10;

/// The bytes that a call of the health service holds. Its answers have two bytes, but tonic takes a
/// buffer for them; `Watch` keeps it for as long as the caller likes.
const HEALTH_BYTES: usize = 16 << 10;
/// The bytes that another call holds: the send buffer of its stream, and the answers of reflection
/// behind it.
const ANSWER_BYTES: usize = 128 << 10;

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

/// The body of a request.
pub(super) trait RequestBody:
    HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
    + Send
    + Unpin
    + 'static
{
}

impl<B> RequestBody for B where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static
{
}

/// The services of the gRPC listener: `ShouldRateLimit` and all others.
#[derive(Debug)]
pub(super) struct Edge<S> {
    pub(super) rls: Arc<Rls<S>>,
    callers: Arc<Callers>,
    others: Routes,
    pub(super) message_bytes: usize,
    pub(super) message_timeout: Duration,
}

/// One connection to the gRPC listener.
#[derive(Debug)]
pub(super) struct Caller<S> {
    pub(super) edge: Arc<Edge<S>>,
    /// The domains that it may ask about; `None`: all.
    pub(super) askable: Option<Arc<Askable>>,
    pub(super) memory: Memory,
}

impl<S: LimitStore> Caller<S> {
    /// The future is boxed, because hyper and tokio move it several times. That of a decision has
    /// no head of a request and no call of tonic in it, so it is small.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> BoxFuture<'static, Response<Reply>> {
        if request.uri().path() == SHOULD_RATE_LIMIT && request.method() == Method::POST {
            let head = self.edge.rls.head(request.headers());
            let body = request.into_body();
            return Box::pin(async move {
                let Self { edge, askable, memory } = &*self;
                let bounds = (edge.message_bytes, edge.message_timeout);
                edge.rls.call(head, body, bounds, askable.as_deref(), memory).await
            });
        }
        Box::pin(self.other(request).map(|response| response.map(Reply::Other)))
    }

    /// The answer to a call that is not a decision.
    pub(super) fn other<B: RequestBody>(
        self: Arc<Self>,
        mut request: Request<B>,
    ) -> BoxFuture<'static, Response<Body>> {
        request.extensions_mut().insert(Asker(self.askable.clone()));
        Box::pin(async move { other(request, self.edge.others.clone(), &self.memory).await })
    }
}

/// The answer of `routes` to a call that is not a decision. The call takes from `memory` from its
/// beginning until its answer has left.
async fn other<B: RequestBody>(
    request: Request<B>,
    mut routes: Routes,
    memory: &Memory,
) -> Response<Body> {
    let (held, read) = match (memory.hold(bytes_of(&request)), memory.hold(0)) {
        (Ok(held), Ok(read)) => (held, read),
        (Err(error), _) | (_, Err(error)) => return unary::exhausted(error).into_http(),
    };
    let request = request.map(|body| {
        HeldRequest::new(body, read).map_err(|error| match error.downcast_ref::<NoRoom>() {
            Some(error) => unary::exhausted(*error).into(),
            None => error,
        })
    });
    let Ok(response) = routes.call(request).await;
    response.map(|body| Body::new(HeldAnswer::new(body, held)))
}

/// The bytes that a call may take beside its message: its headers, of which a map has about three
/// times the size, and what it has to say.
fn bytes_of<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| 3 * (name.as_str().len() + value.len() + 32));
    let answer =
        if request.uri().path().starts_with(HEALTH_PATH) { HEALTH_BYTES } else { ANSWER_BYTES };
    answer + headers.sum::<usize>()
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
