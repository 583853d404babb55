//! The HTTP edge, on its own port: decisions as JSON, health and metrics.
//!
//! | path | answer |
//! |---|---|
//! | `POST /json` | 200; 429 with `Retry-After`; 429 for a body above the bound; 400 |
//! | `GET /healthcheck`, `GET /readyz` | 200 while ready for traffic, otherwise 503; with `?verbose`, a line per check |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /metrics` | OpenMetrics text |

pub mod json;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Request, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{any, get};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::Service as _;

use crate::edge::grpc::headers::whole_seconds;
use crate::edge::grpc::rls::{Answered, Rls};
use crate::edge::listener::Bounds;
use crate::edge::listener::acceptor::{Accepted, Acceptor};
use crate::edge::listener::connection::serve_http1;
use crate::edge::pb;
use crate::settings::section;
use crate::store::LimitStore;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};

section! {
    /// The HTTP listener: /json, /healthcheck, /livez, /readyz, /metrics.
    pub struct HttpSettings in "http" {
        /// Address and port.
        listen: SocketAddr = "0.0.0.0:8080",
    }
}

/// The state shared by the routes.
pub struct Ops<S> {
    /// The service that answers `/json`.
    pub rls: Rls<S>,
    /// The metrics of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// True while this instance should receive traffic.
    pub ready: Arc<AtomicBool>,
    /// Updates gauges before they are rendered.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// The checks that `?verbose` lists.
    pub checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

/// One check of `/readyz?verbose`. A fault does not make this instance unready.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// The name, such as `redis permissions`.
    pub name: String,
    /// The state or, of a fault, the next step.
    pub state: Result<String, String>,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mark, text) = match &self.state {
            Ok(text) => ('+', text),
            Err(text) => ('-', text),
        };
        write!(f, "[{mark}] {}: {}", self.name, text.replace(char::is_control, "?"))
    }
}

impl<S> std::fmt::Debug for Ops<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops").field("ready", &self.ready).finish_non_exhaustive()
    }
}

/// Serves `routes` on the connections of `acceptor` until `stop`, then finishes the requests in
/// flight.
pub async fn serve(acceptor: Acceptor, routes: Router, bounds: Bounds, stop: CancellationToken) {
    let open = TaskTracker::new();
    while let Some(Accepted { stream, permit, .. }) =
        stop.run_until_cancelled(acceptor.accept()).await
    {
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        let (routes, bounds, stop) = (routes.clone(), bounds.clone(), stop.clone());
        let answer = move |request: Request<Incoming>| {
            let mut routes = routes.clone();
            async move {
                let Ok(response) = routes.call(request).await;
                response
            }
        };
        open.spawn(async move {
            serve_http1(stream, &bounds, answer, &stop).await;
            drop(permit);
        });
    }
    open.close();
    open.wait().await;
}

/// Builds the routes. Bodies have at most `body_bytes` and must arrive within `body_timeout`.
pub fn router<S: LimitStore>(
    ops: Arc<Ops<S>>,
    body_bytes: usize,
    body_timeout: Duration,
) -> Router {
    Router::new()
        .route("/json", any(decide::<S>))
        .route("/healthcheck", get(ready::<S>))
        .route("/readyz", get(ready::<S>))
        .route("/livez", get(|| async { "OK\n" }))
        .route("/metrics", get(metrics::<S>))
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(from_fn(move |request, next| in_time(body_timeout, request, next)))
        .with_state(ops)
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
    let (status, mut text) = if ops.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "OK\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
    };
    let names = uri.query().into_iter().flat_map(|query| query.split('&'));
    if names.filter_map(|pair| pair.split('=').next()).any(|name| name == "verbose") {
        text.extend((ops.checks)().iter().map(|check| format!("{check}\n")));
    }
    (status, text).into_response()
}

async fn metrics<S: LimitStore>(State(ops): State<Arc<Ops<S>>>) -> Response {
    (ops.refresh)();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], ops.metrics.render()).into_response()
}

async fn decide<S: LimitStore>(
    State(ops): State<Arc<Ops<S>>>,
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
    match ops.rls.answer(request, None).await {
        Ok(Answered { response, retry_after }) => answer(&response, retry_after),
        Err(error) => bad_request(&error),
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
