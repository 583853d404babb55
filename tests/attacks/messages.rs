//! Calls whose messages do not end.

use std::time::Duration;

use crate::field::{Field, POLICIES, Row};
use crate::peer::{DATA, Peer, raw};
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::Options;

const SHED: &str = r#"tollgate_calls_shed_total{listener="grpc"}"#;

/// The prefix of a message of 64 KiB.
const PREFIX: [u8; 5] = [0, 0, 1, 0, 0];

/// `connections` with 1024 calls each, of whose messages there are `bytes`.
fn unfinished(field: &Field, connections: usize, bytes: usize) -> Vec<Peer> {
    let mut message = if bytes == 0 { Vec::new() } else { PREFIX.to_vec() };
    message.extend(vec![b'm'; bytes]);
    let mut peers: Vec<_> = (0..connections).map(|_| Peer::new(field.at.grpc, 2)).collect();
    for _ in 0..1_024 {
        for peer in &mut peers {
            if !field.on() {
                return peers;
            }
            let id = peer.open(SHOULD_RATE_LIMIT, &[]);
            for part in message.chunks(16_384) {
                peer.send(&raw(DATA, 0, id, part));
            }
        }
        for peer in &mut peers {
            peer.drain();
        }
        // The attackers have the cores of the caller.
        std::thread::sleep(Duration::from_millis(1));
    }
    peers
}

#[test]
fn open_calls_without_a_message_take_what_a_call_may() {
    Row {
        name: "calls without a message",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(4) + f.calls(4 * 1_024) + f.slack(),
        attack: &|field| {
            let _peers = unfinished(field, 4, 0);
            field.hold();
        },
        effect: None,
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn open_calls_whose_messages_never_end_are_bounded_and_shed() {
    Row {
        name: "calls without an end",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 1_024) + f.pending() + f.slack(),
        attack: &|field| {
            let _peers = unfinished(field, 2, 300);
            field.hold();
        },
        effect: Some((SHED, 100.0)),
        evidence: &|tollgate| {
            let line = tollgate.wait_for_log("tollgate_calls_shed_total");
            assert!(line.contains("listeners.max_pending_bytes"), "{line}");
        },
    }
    .run();
}

#[test]
fn large_messages_never_finished_are_bounded_and_shed() {
    Row {
        name: "large messages without an end",
        start: &|| Options::serving(POLICIES).set("listeners.max_pending_bytes=67108864"),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 1_024) + f.pending() / 4 + f.slack(),
        attack: &|field| {
            let _peers = unfinished(field, 2, 60_000);
            field.hold();
        },
        effect: Some((SHED, 1.0)),
        evidence: &|_| {},
    }
    .run();
}
