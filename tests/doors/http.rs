//! The HTTP listener: its switches, its headers, and what it does not serve.

use crate::house::{House, POLICIES};
use crate::support::http::{exchange, get, post};
use crate::support::tollgate::{Options, command};

const BODY: &str = r#"{"domain":"d","descriptors":[{"entries":[{"key":"k","value":"v"}]}]}"#;

#[test]
fn metrics_have_a_listener_of_their_own_and_json_is_switched_off() {
    let tollgate = Options::serving(POLICIES)
        .set("http.metrics_listen=127.0.0.1:0")
        .set("http.json=false")
        .start();
    let metrics = tollgate.at.metrics.unwrap();
    assert_eq!(get(tollgate.at.http, "/metrics").status, 404);
    assert_eq!(post(tollgate.at.http, "/json", BODY).status, 404);
    assert_eq!(get(tollgate.at.http, "/livez").status, 200);
    assert!(get(metrics, "/metrics").body.contains("tollgate_requests_total"));
    for path in ["/livez", "/json", "/"] {
        assert_eq!(get(metrics, path).status, 404, "{path}");
    }
}

#[test]
fn answers_have_security_headers_and_other_paths_and_methods_are_refused() {
    let tollgate = Options::serving(POLICIES).start();
    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("HEAD", "/metrics", 200),
        ("POST", "/metrics", 405),
        ("GET", "/json", 405),
        ("DELETE", "/readyz", 405),
        ("TRACE", "/livez", 405),
        ("GET", "/status", 404),
        ("GET", "/status/../etc/passwd", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/%2e%2e/etc/passwd", 404),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        let answer = exchange(tollgate.at.http, head.as_bytes()).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{method} {path}: {answer}");
        for header in [
            "cache-control: no-store",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
        ] {
            assert!(answer.contains(header), "{method} {path} has no {header}: {answer}");
        }
    }
}

#[test]
fn listener_for_metrics_needs_an_address_of_its_own() {
    let mut command = command();
    command.args(["print-config", "--set", "http.metrics_listen=0.0.0.0:8080"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("http.metrics_listen") && said.contains("is taken by"), "{said}");
}

#[test]
fn log_says_how_to_ask_over_tls() {
    let house = House::new();
    let file = |setting: &str, name: &str| house.file("http", setting, name);
    let options =
        Options::default().set(file("cert_file", "server.crt")).set(file("key_file", "server.key"));
    let tollgate = options.start();
    tollgate.wait_for_log("curl -s https://");
}
