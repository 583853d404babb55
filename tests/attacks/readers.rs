//! Peers that call and do not read the answers.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::field::{Field, POLICIES, Row};
use crate::peer::{Peer, WINDOW_UPDATE, call, connect, raw};
use crate::support::tollgate::{Options, Tollgate};
use crate::support::wait::PATIENCE;
use crate::tls::House;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const WINDOW: u16 = 4;
const MOST: u32 = (1 << 31) - 1;

/// Large answers, which have a status and a rule for each descriptor.
const DESCRIPTORS: usize = 100;

const SLOW: &str = r#"tollgate_connections_cut_total{listener="grpc",reason="slow_reader"}"#;
const OLD: &str = r#"tollgate_connections_cut_total{listener="grpc",reason="overstayed"}"#;

/// Calls over each of `peers` and reads nothing.
fn never_read<S: Read + Write>(field: &Field, mut peers: Vec<Peer<S>>) {
    for peer in &mut peers {
        peer.send(&raw(WINDOW_UPDATE, 0, 0, &(MOST - (1 << 16)).to_be_bytes()));
    }
    for _ in 0..600 {
        if !field.on() {
            break;
        }
        for peer in &mut peers {
            let id = peer.stream();
            peer.send(&call(id, DESCRIPTORS));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    field.hold();
}

fn logged(tollgate: &Tollgate) {
    let line = tollgate.wait_for_log("tollgate_connections_cut_total");
    assert!(line.contains("listeners.write_timeout"), "{line}");
}

#[test]
fn slow_readers_are_bounded_and_closed() {
    Row {
        name: "slow readers",
        start: &|| Options::serving(POLICIES).set("listeners.write_timeout=500ms"),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 240) + f.pending() + f.slack(),
        attack: &|field| {
            let peer = || Peer::over(connect(field.at.grpc, 2), &[(WINDOW, MOST)]);
            never_read(field, (0..2).map(|_| peer()).collect());
        },
        effect: Some((SLOW, 1.0)),
        evidence: &logged,
    }
    .run();
}

#[test]
fn slow_readers_over_tls_are_bounded_and_closed() {
    let house = House::new();
    Row {
        name: "slow readers over TLS",
        start: &|| house.tollgate().set("listeners.write_timeout=500ms"),
        house: Some(&house),
        allowed: &|f| f.filled(2) + f.tls(2) + f.calls(2 * 600) + f.pending() + f.slack(),
        attack: &|field| {
            let peer = || {
                let stream = house.connect(field.at.grpc, 2).expect("a connection");
                Peer::over(stream, &[(WINDOW, MOST)])
            };
            never_read(field, (0..2).map(|_| peer()).collect());
        },
        effect: Some((SLOW, 1.0)),
        evidence: &logged,
    }
    .run();
}

#[test]
fn readers_without_a_window_are_bounded_and_end_with_their_age() {
    Row {
        name: "readers without a window",
        start: &|| {
            Options::serving(POLICIES)
                // The caller is done before its own connection has this age.
                .set("grpc.max_connection_age=3s")
                .set("grpc.drain_timeout=200ms")
        },
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 240) + f.pending() + f.slack(),
        attack: &|field| {
            let peer = || Peer::over(connect(field.at.grpc, 2), &[(WINDOW, 0)]);
            let mut peers: Vec<_> = (0..2).map(|_| peer()).collect();
            for _ in 0..120 {
                for peer in &mut peers {
                    let id = peer.stream();
                    peer.send(&call(id, DESCRIPTORS));
                    peer.drain();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            // They answer pings, and hold on until they are closed.
            let late = Instant::now() + PATIENCE;
            while peers.iter_mut().any(Peer::drain) && Instant::now() < late {
                std::thread::sleep(Duration::from_millis(10));
            }
        },
        effect: Some((OLD, 2.0)),
        evidence: &|_| {},
    }
    .run();
}
