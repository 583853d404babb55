//! Calls that are reset.

use std::time::Duration;

use crate::field::{POLICIES, Row};
use crate::headers::PROTOCOL;
use crate::peer::{END_HEADERS, HEADERS, Peer, RESET, WINDOW_UPDATE, head, raw};
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::Options;

#[test]
fn rapid_reset_ends_its_connection() {
    Row {
        name: "rapid reset",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 1_024) + f.slack(),
        attack: &|field| {
            while field.on() {
                let mut peer = Peer::new(field.at.grpc, 2);
                let mut flood = Vec::new();
                for _ in 0..500 {
                    let id = peer.stream();
                    flood.extend(raw(HEADERS, END_HEADERS, id, &head(SHOULD_RATE_LIMIT)));
                    // CANCEL.
                    flood.extend(raw(RESET, 0, id, &8_u32.to_be_bytes()));
                }
                peer.send(&flood);
                std::thread::sleep(Duration::from_millis(20));
                peer.drain();
            }
        },
        effect: Some((PROTOCOL, 3.0)),
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn resets_that_a_peer_provokes_end_its_connection() {
    Row {
        name: "provoked resets",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 1_024) + f.slack(),
        attack: &|field| {
            while field.on() {
                let mut peer = Peer::new(field.at.grpc, 2);
                let mut alive = true;
                while alive && field.on() {
                    let mut flood = Vec::new();
                    for _ in 0..100 {
                        let id = peer.stream();
                        flood.extend(raw(HEADERS, END_HEADERS, id, &head(SHOULD_RATE_LIMIT)));
                        // Of nothing, which is an error of the stream.
                        flood.extend(raw(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes()));
                    }
                    alive = peer.send(&flood) && peer.drain();
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        },
        effect: Some((PROTOCOL, 1.0)),
        evidence: &|_| {},
    }
    .run();
}
