//! The HTTP/1 listener.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::field::{Field, POLICIES, Row};
use crate::peer::{Socket, connect};
use crate::support::tollgate::Options;

fn options() -> Options {
    Options::serving(POLICIES)
        .set("listeners.handshake_timeout=700ms")
        .set("listeners.message_timeout=700ms")
        .set("listeners.write_timeout=500ms")
}

/// So many connections to the HTTP listener with the first `bytes` of a request.
fn begun(field: &Field, count: usize, bytes: &[u8]) -> Vec<Socket> {
    let begin = |_| {
        let mut stream = connect(field.at.http, 2);
        drop(stream.write_all(bytes));
        stream
    };
    (0..count).map(begin).collect()
}

#[test]
fn slow_headers_take_what_a_connection_may_and_end() {
    Row {
        name: "HTTP/1: slow headers",
        start: &options,
        house: None,
        allowed: &|f| f.http1(200) + f.slack(),
        attack: &|field| {
            let mut head = "GET /livez HTTP/1.1\r\nhost: x\r\n".to_owned();
            for i in 0..60 {
                _ = write!(head, "x-{i}: {}\r\n", "x".repeat(800));
            }
            let _held = begun(field, 200, head.as_bytes());
            field.hold();
        },
        effect: Some((r#"tollgate_connections_cut_total{listener="http",reason="silent"}"#, 200.0)),
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn slow_bodies_take_what_a_connection_may_and_end() {
    Row {
        name: "HTTP/1: slow bodies",
        start: &options,
        house: None,
        allowed: &|f| f.http1(200) + f.pending() + f.slack(),
        attack: &|field| {
            let mut request =
                b"POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: 65000\r\n\r\n".to_vec();
            request.resize(request.len() + 60_000, b' ');
            let mut held = begun(field, 200, &request);
            field.hold();
            for stream in &mut held {
                assert!(said(stream).starts_with("HTTP/1.1 408 "));
            }
        },
        effect: None,
        evidence: &|_| {},
    }
    .run();
}

/// What has come.
fn said(stream: &mut Socket) -> String {
    let mut answer = [0; 512];
    let count = std::io::Read::read(stream, &mut answer).unwrap_or_default();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[test]
fn metrics_that_are_not_read_are_bounded_and_closed() {
    Row {
        name: "HTTP/1: metrics not read",
        start: &options,
        house: None,
        allowed: &|f| f.http1(20) + f.pending() + f.slack(),
        attack: &|field| {
            // Without an end: each request has an answer that waits for the ones before it.
            let asked = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
            let mut held = begun(field, 20, &[]);
            for stream in &mut held {
                drop(stream.write_all(&asked));
                std::thread::sleep(Duration::from_millis(2));
            }
            field.hold();
        },
        effect: Some((
            r#"tollgate_connections_cut_total{listener="http",reason="slow_reader"}"#,
            1.0,
        )),
        evidence: &|_| {},
    }
    .run();
}
