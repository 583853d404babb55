//! The debug listener: what people ask envoyproxy/ratelimit on its debug port.
//!
//! | path | answer |
//! |---|---|
//! | `/rlconfig` | the limits in force, a line each |
//! | `/stats` | numbers of this process as JSON |
//! | `/debug/pprof` and below | 404: there are no profiles |
//! | another | the list of paths |
//!
//! No authentication, and no secret: values of sensitive nodes are numbers, as in metric labels.
//!
//! Source: envoyproxy/ratelimit, `src/server` (paths) and `src/config` (lines of `/rlconfig`).

mod lines;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::json;

use super::{hardened, no_room};
use crate::edge::listener::memory::Memory;
use crate::limiter::Shared;
use crate::settings::section;
use crate::telemetry::process::ProcessNumbers;

section! {
    /// The debug listener, on which envoyproxy/ratelimit shows its limits: `/rlconfig`, `/stats`.
    pub struct DebugSettings in "debug" {
        /// Address and port; unset = none. It has no TLS and asks for no token.
        listen: Option<SocketAddr> = "",
    }
}

/// The paths with what they answer, sorted.
const INDEX: &str = "\
/rlconfig: print out the limits in force
/stats: print out numbers of this process
";

const TEXT: &str = "text/plain; charset=utf-8";

/// The state of the routes.
#[derive(Clone, Debug)]
pub struct Debug {
    /// Has the policies in force.
    pub shared: Arc<Shared>,
}

impl Debug {
    /// Builds the routes.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/rlconfig", get(limits))
            .route("/stats", get(numbers))
            .route("/debug/pprof", any(no_profiles))
            .route("/debug/pprof/", any(no_profiles))
            .route("/debug/pprof/{*profile}", any(no_profiles))
            .fallback(|| async { INDEX })
            .layer(map_response(hardened))
            .with_state(self)
    }
}

async fn limits(State(debug): State<Debug>, Extension(memory): Extension<Memory>) -> Response {
    let snapshot = debug.shared.policies.current();
    // All limits are as long as there are rules, and a peer may ask for them and not read them.
    match memory.answer(lines::of(&snapshot.policies).into()) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(_) => no_room(),
    }
}

async fn numbers() -> Response {
    let numbers = ProcessNumbers::read();
    let text = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "start_time_seconds": numbers.started,
        "cpu_seconds": numbers.cpu_seconds,
        "resident_memory_bytes": numbers.resident_bytes,
        "virtual_memory_bytes": numbers.virtual_bytes,
        "open_fds": numbers.open_fds,
        "max_fds": numbers.max_fds,
    });
    axum::Json(text).into_response()
}

async fn no_profiles() -> Response {
    (StatusCode::NOT_FOUND, "no profiles; use perf with the process id of /stats\n").into_response()
}
