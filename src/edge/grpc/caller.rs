//! One connection to the gRPC listener, and its calls, whichever engine reads them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Incoming};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;

use super::callers::{Askable, Callers};
use super::head::Terms;
use super::holds::Asker;
use super::rls::Rls;
use super::unary::{self, Reply};
use crate::edge::listener::memory::{HeldAnswer, HeldRequest, Memory, NoRoom};
use crate::store::LimitStore;

/// The path of `ShouldRateLimit`.
pub(super) const SHOULD_RATE_LIMIT: &str =
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

/// The bytes that a call of the health service holds. Its answers have two bytes, but tonic takes a
/// buffer for them; `Watch` keeps it for as long as the caller likes.
const HEALTH_BYTES: usize = 16 << 10;
/// The bytes that another call holds: the send buffer of its stream, and the answers of reflection
/// behind it.
const ANSWER_BYTES: usize = 128 << 10;

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
    pub(super) callers: Arc<Callers>,
    pub(super) others: Routes,
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
    pub(super) fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Response<Reply>> {
        if request.uri().path() == SHOULD_RATE_LIMIT && request.method() == Method::POST {
            let head = self.edge.rls.head(Terms::of(request.headers()), request.headers());
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
pub(super) async fn other<B: RequestBody>(
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
