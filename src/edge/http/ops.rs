//! State that the routes of the HTTP edge share.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::edge::grpc::callers::Callers;
use crate::edge::grpc::rls::Rls;
use crate::edge::health::SharedReadiness;
use crate::edge::listener::memory::NoRoom;
use crate::telemetry::metrics::Metrics;

/// The state shared by the routes.
pub struct Ops<S> {
    /// The service that answers `/json`.
    pub rls: Rls<S>,
    /// The metrics of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The readiness of this instance for traffic.
    pub readiness: Arc<SharedReadiness>,
    /// Updates gauges before they are rendered.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// The peers that may ask about a domain.
    pub callers: Arc<Callers>,
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
        f.debug_struct("Ops").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// The answer to a request for which the listener has no memory.
pub(super) fn no_room() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{NoRoom}\n")).into_response()
}
