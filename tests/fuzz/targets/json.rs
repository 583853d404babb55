//! The body of a `POST /json`, answered by the routes of the HTTP listener.
//!
//! Input: the body.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tollgate::edge::grpc::settings::HeaderStyle;
use tollgate::edge::http::{HttpSettings, Ops, router};
use tollgate::edge::listener::Peer;
use tonic::codegen::Service as _;

use super::world;

/// The largest body. Longer ones are over their limit.
const BODY_BYTES: usize = 4_096;

/// 200 or 429 with a decision, or 400 with a reason.
pub fn run(body: &[u8]) {
    let mut request = Request::post("/json").body(Full::from(body.to_vec())).expect("a request");
    request.extensions_mut().insert(Peer::in_clear(([127, 0, 0, 1], 1).into()));
    let ops = Ops {
        rls: world::service(HeaderStyle::Reference),
        metrics: world::metrics(),
        readiness: Arc::default(),
        refresh: Box::new(|| {}),
        callers: Arc::default(),
        checks: Box::new(Vec::new),
    };
    let (ops, settings) = (Arc::new(ops), HttpSettings::default());
    let mut routes = router(ops, &settings, BODY_BYTES, Duration::from_mins(1));
    let (head, answer) = world::block_on(async {
        let Ok(response) = routes.call(request).await;
        let (head, body) = response.into_parts();
        (head, body.collect().await.expect("a body").to_bytes())
    });
    let decision = || serde_json::from_slice::<Value>(&answer).expect("JSON");
    let waits = head.headers.contains_key(header::RETRY_AFTER);
    match head.status {
        StatusCode::OK => assert!(decision()["overallCode"] == "OK" && !waits),
        StatusCode::TOO_MANY_REQUESTS => assert_eq!(decision()["overallCode"], "OVER_LIMIT"),
        StatusCode::BAD_REQUEST => assert!(body.len() <= BODY_BYTES && !answer.is_empty()),
        status => panic!("{status}: {}", answer.escape_ascii()),
    }
    assert!(body.len() <= BODY_BYTES || head.status == StatusCode::TOO_MANY_REQUESTS);
}
