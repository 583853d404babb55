//! The admin listener.

use std::time::Duration;

use crate::field::{POLICIES, Row};
use crate::peer::{DATA, HEALTH_CHECK, PING, Peer, raw};
use crate::support::tollgate::Options;

/// The prefix of a message of 16 KiB, which is the most that health takes.
const PREFIX: [u8; 5] = [0, 0, 0, 0x40, 0];

#[test]
fn messages_without_an_end_are_bounded_and_shed() {
    Row {
        name: "admin: messages without an end",
        start: &|| Options::serving(POLICIES).set("listeners.max_pending_bytes=33554432"),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 300) + f.pending() / 8 + f.slack(),
        attack: &|field| {
            let mut peers: Vec<_> = (0..2).map(|_| Peer::new(field.at.admin, 2)).collect();
            let message = [&PREFIX[..], &[b'm'; 10_000]].concat();
            for _ in 0..300 {
                for peer in &mut peers {
                    let id = peer.open(HEALTH_CHECK, &[]);
                    peer.send(&raw(DATA, 0, id, &message));
                    peer.drain();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            field.hold();
        },
        effect: Some((r#"tollgate_calls_shed_total{listener="admin"}"#, 1.0)),
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn flood_of_pings_on_the_admin_listener_leaves_decisions_alone() {
    Row {
        name: "admin: PING flood",
        start: &|| Options::serving(POLICIES).set("listeners.write_timeout=300ms"),
        house: None,
        allowed: &|f| f.filled(1) + f.slack(),
        attack: &|field| {
            let (mut peer, flood) =
                (Peer::new(field.at.admin, 2), raw(PING, 0, 0, b"pingpong").repeat(2_000));
            while field.on() && peer.send(&flood) {
                std::thread::sleep(Duration::from_millis(2));
            }
            field.hold();
        },
        effect: Some((
            r#"tollgate_connections_cut_total{listener="admin",reason="slow_reader"}"#,
            1.0,
        )),
        evidence: &|_| {},
    }
    .run();
}
