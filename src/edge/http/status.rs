//! The status page: what this replica decides, for people. It reads and changes nothing.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page |
//! | `/status/page.css`, `/status/*.js` | its parts |
//! | `/status/state.json` | the numbers: `state` |
//! | `/status/clients.json?domain=&text=` | clients that match: `clients` |
//! | `/status/explain.json?domain=&entry=KEY=VALUE&hits=` | what a request meets: `explain` |
//!
//! The page asks for the state each second. That needs no open connection, so it works behind the
//! bounds of the listener and goes on after a restart. It is plain HTML, CSS and ES modules, and
//! its chart is SVG that it draws itself: nothing is built, fetched from elsewhere or run inline,
//! so its Content-Security-Policy allows this origin alone.

mod clients;
mod explain;
mod query;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::time::Instant;

use self::query::Query;
use super::ops::{Ops, no_room};
use crate::edge::listener::memory::Memory;
use crate::store::LimitStore;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the page: path, type, content.
const FILES: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("status/page/index.html")),
    ("/status/page.css", "text/css; charset=utf-8", include_str!("status/page/page.css")),
    ("/status/page.js", SCRIPT, include_str!("status/page/page.js")),
    ("/status/chart.js", SCRIPT, include_str!("status/page/chart.js")),
    ("/status/tables.js", SCRIPT, include_str!("status/page/tables.js")),
    ("/status/icon.svg", "image/svg+xml", include_str!("status/page/icon.svg")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The state that the routes of the page share.
struct Page<S> {
    ops: Arc<Ops<S>>,
    started: Instant,
}

/// Builds the routes of the page.
pub fn routes<S: LimitStore>(ops: Arc<Ops<S>>) -> Router {
    let mut routes: Router<Arc<Page<S>>> = Router::new()
        .route("/status/state.json", get(state::<S>))
        .route("/status/clients.json", get(clients::<S>))
        .route("/status/explain.json", get(explain::<S>));
    for (path, kind, content) in FILES {
        let file = move || async move { ([(header::CONTENT_TYPE, kind)], content) };
        routes = routes.route(path, get(file));
    }
    let page = Arc::new(Page { ops, started: Instant::now() });
    routes.route_layer(axum::middleware::map_response(guarded)).with_state(page)
}

/// Limits what a browser runs and loads to what this listener serves.
async fn guarded(mut response: Response) -> Response {
    let policy = HeaderValue::from_static(POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn state<S: LimitStore>(
    State(page): State<Arc<Page<S>>>,
    Extension(memory): Extension<Memory>,
) -> Response {
    (page.ops.refresh)();
    json(&memory, &state::read(&page.ops, page.started.elapsed()))
}

async fn clients<S: LimitStore>(
    State(page): State<Arc<Page<S>>>,
    Extension(memory): Extension<Memory>,
    uri: Uri,
) -> Response {
    json(&memory, &clients::search(page.ops.rls.limiter().shared(), &Query::of(&uri)))
}

async fn explain<S: LimitStore>(
    State(page): State<Arc<Page<S>>>,
    Extension(memory): Extension<Memory>,
    uri: Uri,
) -> Response {
    match explain::explain(&page.ops.rls, &Query::of(&uri)).await {
        Ok(explained) => json(&memory, &explained),
        Err(fault) => (StatusCode::BAD_REQUEST, format!("{fault}\n")).into_response(),
    }
}

fn json(memory: &Memory, answer: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(answer) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written\n")
            .into_response();
    };
    match memory.answer(text.into()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => no_room(),
    }
}
