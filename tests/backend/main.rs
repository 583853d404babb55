//! The sample backend as a process: its answers, its refusals, its orderly end.
//!
//! One binary of its own, because it starts `sample-backend` and nothing of tollgate.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml exempts test functions, not their helpers"
)]

use std::{
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

const DEADLINE: Duration = Duration::from_secs(10);

/// A running sample backend on a free port; killed when dropped.
struct Backend {
    process: Child,
    address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    _files: TempDir,
}

/// Status, the header `x-instance`, and the JSON body of one answer.
struct Answer {
    status: StatusCode,
    instance: String,
    body: Value,
}

impl Backend {
    async fn start(instance: &str, drain: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ready = files.path().join("ready.json");
        let process = tokio::process::Command::new(env!("CARGO_BIN_EXE_sample-backend"))
            .args(["--listen", "127.0.0.1:0", "--instance", instance, "--drain", drain])
            .arg("--ready-file")
            .arg(&ready)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = address_in(&ready).await;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { process, address, client, _files: files }
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status();
        let instance = response.headers()["x-instance"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, instance, body: serde_json::from_slice(&bytes).unwrap() }
    }

    fn terminate(&self) {
        let id = self.process.id().expect("the process is running").to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    async fn end(mut self) -> ExitStatus {
        tokio::time::timeout(DEADLINE, self.process.wait()).await.expect("ends in time").unwrap()
    }
}

async fn address_in(ready: &Path) -> String {
    let start = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(ready) {
            let value: Value = serde_json::from_str(&text).unwrap();
            return value["http"].as_str().unwrap().to_owned();
        }
        assert!(start.elapsed() < DEADLINE, "the backend did not get ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn prices_depend_on_the_symbol_and_name_the_instance() {
    let (one, two) = (Backend::start("one", "0s").await, Backend::start("two", "0s").await);
    let first = one.send("GET", "/api/v1/prices/acme", "").await;
    let second = two.send("GET", "/api/v1/prices/ACME", "").await;
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!((&*first.instance, &*second.instance), ("one", "two"));
    assert_eq!(first.body["instance"], "one");
    assert_eq!(first.body["symbol"], "ACME");
    assert_eq!(first.body["currency"], "USD");
    assert!(first.body["price"].as_str().unwrap().parse::<f64>().unwrap() >= 10.0);
    assert_eq!(first.body["price"], second.body["price"]);
}

#[tokio::test]
async fn orders_get_an_id_of_their_own() {
    let backend = Backend::start("one", "0s").await;
    let order = json!({ "symbol": "acme", "quantity": 2 }).to_string();
    for id in ["one-1", "one-2"] {
        let answer = backend.send("POST", "/api/v1/orders", &order).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let expected = json!({ "id": id, "symbol": "ACME", "quantity": 2, "instance": "one" });
        assert_eq!(answer.body, expected);
    }
}

#[tokio::test]
async fn bad_input_is_refused_as_json() {
    let backend = Backend::start("one", "0s").await;
    for (method, path, body, status) in [
        ("POST", "/api/v1/orders", "{", StatusCode::BAD_REQUEST),
        ("POST", "/api/v1/orders", r#"{"symbol":"A"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (
            "POST",
            "/api/v1/orders",
            r#"{"symbol":"A","quantity":0}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "POST",
            "/api/v1/orders",
            r#"{"symbol":"","quantity":1}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        ("GET", "/api/v1/prices/not-a-symbol", "", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/api/v1/orders", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/nowhere", "", StatusCode::NOT_FOUND),
    ] {
        let answer = backend.send(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert_eq!((&*answer.instance, &answer.body["instance"]), ("one", &json!("one")));
        assert!(!answer.body["error"].as_str().unwrap().is_empty(), "{method} {path} {body}");
    }
}

#[tokio::test]
async fn readiness_turns_off_before_the_process_ends() {
    let backend = Backend::start("one", "1s").await;
    assert_eq!(backend.send("GET", "/health/readiness", "").await.status, StatusCode::OK);
    backend.terminate();
    let start = Instant::now();
    while backend.send("GET", "/health/readiness", "").await.status == StatusCode::OK {
        assert!(start.elapsed() < DEADLINE, "readiness stayed on");
    }
    assert_eq!(backend.send("GET", "/health/liveness", "").await.status, StatusCode::OK);
    assert_eq!(backend.send("GET", "/api/v1/prices/ACME", "").await.status, StatusCode::OK);
    assert!(backend.end().await.success());
}
