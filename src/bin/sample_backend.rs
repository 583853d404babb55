//! The upstream of the demo: a small quotes API that names the responding instance.
//!
//! Envoy load-balances, retries and protects it. It is not part of the rate limiter. It does not
//! store orders, and its prices are a pure function of the symbol.
//!
//! | route | answer |
//! |---|---|
//! | `GET /api/v1/prices/{symbol}` | 200 `{symbol, price, currency, instance}` |
//! | `POST /api/v1/orders` `{symbol, quantity}` | 201 `{id, symbol, quantity, instance}` |
//! | `PUT /capacity/{per_second}` | 204; so many requests of the API are answered in a second |
//! | `GET /health/liveness` | 200 while the process runs |
//! | `GET /health/readiness` | 200, or 503 after a signal to stop |
//!
//! With a capacity requests wait in one queue, and a request whose caller has left is worked on all
//! the same: an upstream that is unwell.
//!
//! Every response has the header `x-instance`. An error response is `{error, instance}`.

use std::{
    io,
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::JsonRejection},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use clap::Parser;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, signal::unix, sync::watch, time::Instant};

/// Maximum time for requests in flight to finish after the backend has stopped accepting.
const GRACE: Duration = Duration::from_secs(5);

/// Largest quantity of one order.
const MAX_QUANTITY: u32 = 1_000_000;

/// A small quotes API that names the responding instance: the upstream of the demo.
#[derive(Debug, Parser)]
#[command(name = "sample-backend", version)]
struct Args {
    /// Address to listen on; port 0 takes any free port
    #[arg(long, env = "SAMPLE_BACKEND_LISTEN", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Name reported in every answer
    #[arg(long, env = "SAMPLE_BACKEND_INSTANCE", default_value = "backend-1", value_parser = parse_instance)]
    instance: String,

    /// Time to report readiness 503 before closing, so that load balancers notice
    #[arg(long, env = "SAMPLE_BACKEND_DRAIN", default_value = "2s", value_parser = humantime::parse_duration)]
    drain: Duration,

    /// Requests of the API that are answered in a second; 0 = any number
    #[arg(long, env = "SAMPLE_BACKEND_CAPACITY", default_value_t = 0)]
    capacity: u32,

    /// File to write {"http": "ip:port"} to once requests are accepted
    #[arg(long, env = "SAMPLE_BACKEND_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// The state shared by the handlers.
#[derive(Debug)]
struct Backend {
    instance: String,
    ready: AtomicBool,
    orders: AtomicU64,
    queue: Queue,
}

/// The queue of an upstream that answers one request after the other.
#[derive(Debug)]
struct Queue {
    /// 0: no queue.
    per_second: AtomicU32,
    /// The time at which all that wait are answered.
    free_at: Mutex<Instant>,
}

impl Queue {
    /// Waits for the turn of one request. Its place stays taken if the caller leaves.
    async fn turn(&self) {
        let per_second = self.per_second.load(Ordering::Relaxed);
        if per_second == 0 {
            return;
        }
        let turn = {
            let mut free_at = self.free_at.lock();
            *free_at = free_at.max(Instant::now()) + Duration::from_secs(1) / per_second;
            *free_at
        };
        tokio::time::sleep_until(turn).await;
    }
}

type Shared = Arc<Backend>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let backend = Arc::new(Backend {
        instance: args.instance,
        ready: AtomicBool::new(true),
        orders: AtomicU64::new(0),
        queue: Queue {
            per_second: AtomicU32::new(args.capacity),
            free_at: Mutex::new(Instant::now()),
        },
    });

    let (close, mut closed) = watch::channel(false);
    let server = axum::serve(listener, routes(&backend)).with_graceful_shutdown(async move {
        // An error means that the sender is dropped, which also is a reason to stop.
        let _ = closed.wait_for(|closed| *closed).await;
    });
    let mut server = tokio::spawn(server.into_future());
    if let Some(path) = &args.ready_file {
        write_ready_file(path, address)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprintln!("{} serves http://{address}", backend.instance);

    tokio::select! {
        () = signals.stop() => {}
        ended = &mut server => return ended?.context("the server failed"),
    }
    eprintln!("{} drains for {:?}", backend.instance, args.drain);
    backend.ready.store(false, Ordering::Relaxed);
    tokio::time::sleep(args.drain).await;
    close.send_replace(true);
    match tokio::time::timeout(GRACE, server).await {
        Ok(ended) => ended?.context("the server failed"),
        Err(_) => anyhow::bail!("requests in flight did not finish within {GRACE:?}"),
    }
}

/// An instance name ends up in a header: visible ASCII only.
fn parse_instance(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected visible ASCII characters without spaces".to_owned());
    }
    Ok(text.to_owned())
}

fn routes(backend: &Shared) -> Router {
    let queued = axum::middleware::from_fn_with_state(backend.clone(), queue);
    Router::new()
        .route("/api/v1/prices/{symbol}", get(price))
        .route("/api/v1/orders", post(order))
        .route_layer(queued)
        .route("/capacity/{per_second}", put(capacity))
        .route("/health/liveness", get(liveness))
        .route("/health/readiness", get(readiness))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::map_response_with_state(backend.clone(), name_instance))
        .with_state(backend.clone())
}

/// Lets a request of the API wait for its turn.
async fn queue(State(backend): State<Shared>, request: Request, next: Next) -> Response {
    backend.queue.turn().await;
    next.run(request).await
}

async fn capacity(State(backend): State<Shared>, Path(per_second): Path<u32>) -> StatusCode {
    backend.queue.per_second.store(per_second, Ordering::Relaxed);
    StatusCode::NO_CONTENT
}

async fn price(State(backend): State<Shared>, Path(symbol): Path<String>) -> Response {
    let Some(symbol) = canonical_symbol(&symbol) else { return bad_symbol(&backend) };
    let cents = price_cents(&symbol);
    Json(json!({
        "symbol": symbol,
        "price": format!("{}.{:02}", cents / 100, cents % 100),
        "currency": "USD",
        "instance": backend.instance,
    }))
    .into_response()
}

/// The body of `POST /api/v1/orders`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    symbol: String,
    quantity: u32,
}

async fn order(
    State(backend): State<Shared>,
    body: Result<Json<Order>, JsonRejection>,
) -> Response {
    let order = match body {
        Ok(Json(order)) => order,
        Err(rejection) => return refuse(&backend, rejection.status(), &rejection.body_text()),
    };
    let Some(symbol) = canonical_symbol(&order.symbol) else { return bad_symbol(&backend) };
    if !(1..=MAX_QUANTITY).contains(&order.quantity) {
        let reason = format!("quantity must be between 1 and {MAX_QUANTITY}");
        return refuse(&backend, StatusCode::UNPROCESSABLE_ENTITY, &reason);
    }
    let number = backend.orders.fetch_add(1, Ordering::Relaxed) + 1;
    let body = json!({
        "id": format!("{}-{number}", backend.instance),
        "symbol": symbol,
        "quantity": order.quantity,
        "instance": backend.instance,
    });
    (StatusCode::CREATED, Json(body)).into_response()
}

async fn liveness(State(backend): State<Shared>) -> Response {
    Json(json!({ "status": "alive", "instance": backend.instance })).into_response()
}

async fn readiness(State(backend): State<Shared>) -> Response {
    if !backend.ready.load(Ordering::Relaxed) {
        return refuse(&backend, StatusCode::SERVICE_UNAVAILABLE, "stopping");
    }
    Json(json!({ "status": "ready", "instance": backend.instance })).into_response()
}

async fn unknown_path(State(backend): State<Shared>) -> Response {
    refuse(&backend, StatusCode::NOT_FOUND, "no such path")
}

async fn unknown_method(State(backend): State<Shared>) -> Response {
    refuse(&backend, StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}

async fn name_instance(State(backend): State<Shared>, mut response: Response) -> Response {
    if let Ok(name) = HeaderValue::from_str(&backend.instance) {
        response.headers_mut().insert("x-instance", name);
    }
    response
}

fn bad_symbol(backend: &Backend) -> Response {
    let reason = "symbol must be 1 to 10 ASCII letters, digits or dots";
    refuse(backend, StatusCode::UNPROCESSABLE_ENTITY, reason)
}

fn refuse(backend: &Backend, status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason, "instance": backend.instance }))).into_response()
}

/// Returns the symbol in upper case, or `None` if it is invalid.
fn canonical_symbol(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    ((1..=10).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_ascii_uppercase())
}

/// A price from 10.00 to 999.99, in cents, derived from the 32-bit FNV-1a hash of the symbol.
fn price_cents(symbol: &str) -> u32 {
    let hash = symbol
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    1_000 + hash % 99_000
}

/// Writes the file atomically: a temporary file, then a rename.
fn write_ready_file(path: &FilePath, address: SocketAddr) -> io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, json!({ "http": address.to_string() }).to_string())?;
    std::fs::rename(partial, path)
}

/// The signals that end the process.
#[derive(Debug)]
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(unix::SignalKind::terminate())?,
            interrupt: unix::signal(unix::SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_canonical_or_refused() {
        for (text, expected) in [
            ("acme", Some("ACME")),
            ("BRK.B", Some("BRK.B")),
            ("", None),
            ("ABCDEFGHIJK", None),
            ("a/b", None),
            ("é", None),
        ] {
            assert_eq!(canonical_symbol(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn prices_depend_on_the_symbol_alone_and_stay_in_range() {
        // FNV-1a of "a" is published as e40c292c.
        assert_eq!(price_cents("a"), 1_000 + 0xe40c_292c_u32 % 99_000);
        for symbol in ["ACME", "BRK.B", "X"] {
            assert!((1_000..100_000).contains(&price_cents(symbol)), "{symbol}");
        }
    }

    #[test]
    fn an_instance_that_no_header_can_carry_is_refused() {
        assert_eq!(parse_instance("backend-2"), Ok("backend-2".to_owned()));
        for text in ["", "two words", "line\nbreak"] {
            assert!(parse_instance(text).is_err(), "{text:?}");
        }
    }
}
