//! The start without `policies.start_without`: no port of decisions before the first response.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::ads::Ads;
use crate::options;
use crate::resources::{resource, simple};
use crate::support::grpc::codes;
use crate::support::http;
use crate::support::redis::free_port;
use crate::support::tollgate::{Tollgate, command, request};
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;

const PATIENCE: Duration = Duration::from_secs(30);

struct Starting {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
    _data: tempfile::TempDir,
}

/// A tollgate that is not ready; its HTTP port is open.
fn start(ads: &Ads) -> Starting {
    let [grpc, http] = [free_port(), free_port()]
        .map(|port| format!("127.0.0.1:{port}").parse::<SocketAddr>().unwrap());
    let data = tempfile::tempdir().unwrap();
    let mut command = command();
    for setting in [
        format!("grpc.listen={grpc}"),
        format!("http.listen={http}"),
        "admin.listen=127.0.0.1:0".to_owned(),
        format!("xds.server={}", ads.at),
        format!("data_dir={}", data.path().display()),
        "policies.default_algorithm=fixed_window".to_owned(),
        "grpc.drain_delay=0s".to_owned(),
    ] {
        command.args(["--set", &setting]);
    }
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let starting = Starting { child, grpc, http, _data: data };
    wait_for("HTTP", || TcpStream::connect(http).is_ok());
    starting
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Starting {
    fn health(&self) -> u16 {
        http::get(self.http, "/healthcheck").status
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn first_response_opens_the_port_and_a_good_one_makes_healthy() {
    let ads = Ads::start();
    let starting = start(&ads);
    ads.subscribed();
    assert_eq!(starting.health(), 503);
    assert!(TcpStream::connect(starting.grpc).is_err(), "the port is closed");
    let json = r#"{"domain":"x","descriptors":[{"entries":[{"key":"k","value":"v"}]}]}"#;
    let answer = http::post(starting.http, "/json", json);
    assert_eq!((answer.status, &*answer.body), (503, "no rate limit configuration loaded\n"));

    // A bad one opens the port, too: callers get errors then.
    let descriptors = json!([{"key": "k", "rate_limit": {"unit": 99}}]);
    let bad = resource(&json!({"name": "x", "domain": "x", "descriptors": descriptors}));
    ads.push("1", "a", vec![bad]);
    assert_eq!(ads.nacked("", "a"), "x: invalid rate limit unit '99'");
    wait_for("the port", || TcpStream::connect(starting.grpc).is_ok());
    let mut client = RateLimitServiceClient::new(Tollgate::channel(starting.grpc).await);
    let call = request("x", &[&[("k", "v")]]);
    let error = client.should_rate_limit(call.clone()).await.unwrap_err();
    assert_eq!(error.message(), "no rate limit configuration loaded");
    assert_eq!(starting.health(), 503);

    ads.accepted("2", "b", vec![simple("x", 1)]);
    wait_for("health", || starting.health() == 200);
    assert_eq!(codes(&mut client, &call, 2).await, [Code::Ok, Code::OverLimit]);
}

#[tokio::test]
async fn process_that_waits_for_a_response_ends_on_a_signal() {
    let ads = Ads::start();
    let mut starting = start(&ads);
    ads.subscribed();
    let pid = starting.child.id().to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(sent.success());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = starting.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn control_plane_that_is_away_does_not_keep_tollgate_from_starting() {
    let ads = Ads::start();
    let options = options(&ads).set("xds.backoff.initial=50ms").set("xds.backoff.max=50ms");
    let at = ads.stop();
    let tollgate = options.start();
    tollgate.wait_for_log("no stream of the control plane");
    assert_eq!(http::get(tollgate.at.http, "/healthcheck").status, 200);
    let ads = Ads::at(at, None);
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("x", 1)]);
    tollgate.wait_for_metric("tollgate_xds_connected", 1.0);
}
