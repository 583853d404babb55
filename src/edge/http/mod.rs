//! The HTTP edge, on its own port: decisions as JSON, health and metrics.
//!
//! | path | answer |
//! |---|---|
//! | `POST /json` | 200; 429 with `Retry-After`; 429 for a body above the bound; 400; 403; 503 if the caller decides |
//! | `GET /healthcheck`, `GET /readyz` | 200 while ready for traffic, otherwise 503; with `?verbose`, a line per check |
//! | `GET /` and below `/status` | the [status page](status) |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /metrics` | metrics, as OpenMetrics or Prometheus text; on a listener of its own with `http.metrics_listen` |
//!
//! The debug listener has [other paths](debug).
//!
//! Another path is 404, another method 405. HEAD goes wherever GET goes.

pub mod debug;
pub mod json;
mod ops;
pub mod status;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;

use self::ops::no_room;
pub use self::ops::{Check, Ops};
use crate::edge::grpc::callers::FORBIDDEN;
use crate::edge::grpc::headers::whole_seconds;
use crate::edge::grpc::rls::{Answered, Unanswered};
use crate::edge::health::Readiness;
use crate::edge::listener::acceptor::Acceptor;
use crate::edge::listener::connection::serve_http1;
use crate::edge::listener::memory::{HeldRequest, Memory};
use crate::edge::listener::tls::settings::HttpTlsSettings;
use crate::edge::listener::{Bounds, Peer};
use crate::edge::pb;
use crate::settings::{Reader, section};
use crate::store::LimitStore;
use crate::telemetry::metrics::TextFormat;
use crate::telemetry::traces::Trace;

section! {
    /// The HTTP listener: /, /json, /healthcheck, /livez, /readyz, /metrics.
    pub struct HttpSettings in "http" {
        /// Address and port.
        listen: SocketAddr = "0.0.0.0:8080",
        /// Address and port of a listener for `/metrics` alone, without TLS; unset = `/metrics` is
        /// served on `listen`.
        metrics_listen: Option<SocketAddr> = "",
        /// Serve `/metrics` on `listen`; unset = unless `metrics_listen` is set.
        metrics: Option<bool> = "",
        /// Serve decisions at `/json`.
        json: bool = "true",
        /// Serve the status page at `/`.
        status: bool = "true",
        /// Address and port of a listener for the status page alone, without TLS; unset = it is
        /// served on `listen`.
        status_listen: Option<SocketAddr> = "",
    }
    with {
        /// TLS.
        tls: HttpTlsSettings,
    }
}

impl HttpSettings {
    /// The rules of its TLS.
    pub(crate) fn resolve(&self, reader: &mut Reader) {
        self.tls.resolve(reader);
    }
}

/// The span of a request for a decision, if it is traced.
struct Traced(Option<Box<Trace>>);

impl<S: LimitStore> FromRequestParts<Arc<Ops<S>>> for Traced {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, ops: &Arc<Ops<S>>) -> Result<Self, Infallible> {
        Ok(Self(ops.rls.trace("POST /json", &parts.headers)))
    }
}

/// Serves `routes` on the connections of `acceptor` until `stop`, then finishes the requests in
/// flight.
pub async fn serve(
    mut acceptor: Acceptor,
    routes: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let open = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(acceptor.accept()).await {
        let Ok(connection) = accepted.attach() else { continue };
        let (routes, bounds, stop) = (routes.clone(), bounds.clone(), stop.clone());
        let (peer, memory) = (connection.peer.clone(), connection.memory.clone());
        let answer = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(memory.clone());
            let (mut routes, held) = (routes.clone(), memory.hold(0));
            async move {
                let Ok(held) = held else { return no_room() };
                let request = request.map(|body| HeldRequest::new(body, held));
                let Ok(response) = routes.call(request).await;
                response
            }
        };
        open.spawn(async move { serve_http1(connection, &bounds, answer, &stop).await });
    }
    open.close();
    open.wait().await;
}

/// Builds the routes of the HTTP listener. Bodies have at most `body_bytes` and must arrive within
/// `body_timeout`.
pub fn router<S: LimitStore>(
    ops: Arc<Ops<S>>,
    settings: &HttpSettings,
    body_bytes: usize,
    body_timeout: Duration,
) -> Router {
    let mut routes = Router::new()
        .route("/healthcheck", get(ready::<S>))
        .route("/readyz", get(ready::<S>))
        .route("/livez", get(|| async { "OK\n" }));
    if settings.json {
        routes = routes.route("/json", post(decide::<S>));
    }
    if settings.metrics.unwrap_or(settings.metrics_listen.is_none()) {
        routes = routes.route("/metrics", get(metrics::<S>));
    }
    let mut routes = routes.with_state(Arc::clone(&ops));
    if settings.status && settings.status_listen.is_none() {
        routes = routes.merge(status::routes(ops));
    }
    routes
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(from_fn(move |request, next| in_time(body_timeout, request, next)))
        .layer(map_response(hardened))
}

/// Builds the routes of the listener for the status page.
pub fn status_router<S: LimitStore>(ops: Arc<Ops<S>>) -> Router {
    status::routes(ops).layer(map_response(hardened))
}

/// Builds the routes of the listener for metrics, which are at `path`.
pub fn metrics_router<S: LimitStore>(ops: Arc<Ops<S>>, path: &str) -> Router {
    let routes = Router::new().route(path, get(metrics::<S>));
    routes.layer(map_response(hardened)).with_state(ops)
}

/// The headers that keep a browser from storing an answer, guessing its type, or running anything
/// in it.
async fn hardened(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.entry(name).or_insert_with(|| HeaderValue::from_static(value));
    }
    response
}

/// Answers 408 for a request that is not answered in time. Decisions take milliseconds, so the
/// cause is a body that did not arrive.
async fn in_time(body_timeout: Duration, request: Request<Body>, next: Next) -> Response {
    tokio::time::timeout(body_timeout, next.run(request)).await.unwrap_or_else(|_| {
        let reason = format!("the body did not arrive in {body_timeout:?}\n");
        (StatusCode::REQUEST_TIMEOUT, reason).into_response()
    })
}

async fn ready<S: LimitStore>(State(ops): State<Arc<Ops<S>>>, uri: Uri) -> Response {
    let readiness = ops.readiness.get();
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut text = format!("{}\n", readiness.text());
    let names = uri.query().into_iter().flat_map(|query| query.split('&'));
    if names.filter_map(|pair| pair.split('=').next()).any(|name| name == "verbose") {
        text.extend((ops.checks)().iter().map(|check| format!("{check}\n")));
    }
    (status, text).into_response()
}

async fn metrics<S: LimitStore>(
    State(ops): State<Arc<Ops<S>>>,
    Extension(memory): Extension<Memory>,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = TextFormat::accepted(accept);
    (ops.refresh)();
    // All metrics are as long as there are rules, and a peer may ask for them and not read them.
    match memory.answer(ops.metrics.render(format).into()) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => no_room(),
    }
}

async fn decide<S: LimitStore>(
    State(ops): State<Arc<Ops<S>>>,
    Extension(peer): Extension<Peer>,
    Traced(trace): Traced,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejected) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return answer(&ops.rls.unread(), None);
        }
        Err(rejected) => return rejected.into_response(),
    };
    let request = match json::request(&body) {
        Ok(request) => request,
        Err(error) => return bad_request(&error),
    };
    if ops.callers.askable(&peer).is_some_and(|askable| !askable.has(&request.domain)) {
        ops.metrics.requests.forbidden.inc();
        return (StatusCode::FORBIDDEN, format!("{FORBIDDEN}\n")).into_response();
    }
    match ops.rls.answer(request, None, trace).await {
        Ok(Answered { response, retry_after, hold, .. }) => {
            if let Some(hold) = hold {
                hold.heard();
            }
            answer(&response, retry_after)
        }
        Err(Unanswered::Invalid(bad)) => bad_request(&bad),
        Err(Unanswered::Unavailable(reason)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
        }
    }
}

/// 200 or 429; a request that passes after a wait gets `Retry-After`, in whole seconds as HTTP has
/// it.
fn answer(response: &pb::RateLimitResponse, retry_after: Option<Duration>) -> Response {
    let body = axum::Json(json::response(response));
    if response.overall_code() != json::Code::OverLimit {
        return body.into_response();
    }
    let wait = retry_after.map(|wait| [(header::RETRY_AFTER, whole_seconds(wait).to_string())]);
    (StatusCode::TOO_MANY_REQUESTS, wait.map(AppendHeaders), body).into_response()
}

fn bad_request(error: &dyn std::fmt::Display) -> Response {
    (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
}
