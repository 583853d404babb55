//! Frames that ask for answers, from peers that do not read them.

use std::time::Duration;

use crate::field::{Field, POLICIES, Row};
use crate::peer::{PING, Peer, SETTINGS, raw};
use crate::support::tollgate::Options;

const SLOW: &str = r#"tollgate_connections_cut_total{listener="grpc",reason="slow_reader"}"#;

fn options() -> Options {
    Options::serving(POLICIES).set("listeners.write_timeout=300ms")
}

/// Sends `frames` over two connections at a time, without reading.
fn flood(field: &Field, frames: &[u8]) {
    while field.on() {
        let mut peers = [Peer::new(field.at.grpc, 2), Peer::new(field.at.grpc, 3)];
        while field.on() && peers.iter_mut().all(|peer| peer.send(frames)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Until it is closed.
        std::thread::sleep(Duration::from_millis(400));
    }
}

#[test]
fn ping_flood_is_held_back_and_closed() {
    Row {
        name: "PING flood",
        start: &options,
        house: None,
        allowed: &|f| f.filled(4) + f.slack(),
        attack: &|field| flood(field, &raw(PING, 0, 0, b"pingpong").repeat(500)),
        effect: Some((SLOW, 1.0)),
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn settings_flood_is_held_back_and_closed() {
    Row {
        name: "SETTINGS flood",
        start: &options,
        house: None,
        allowed: &|f| f.filled(4) + f.slack(),
        attack: &|field| flood(field, &raw(SETTINGS, 0, 0, &[]).repeat(500)),
        effect: Some((SLOW, 1.0)),
        evidence: &|_| {},
    }
    .run();
}
