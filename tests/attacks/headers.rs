//! Headers: many, long, too long, without an end, and made to stay.

use std::time::Duration;

use crate::field::{Field, POLICIES, Row};
use crate::peer::{
    CONTINUATION, END_HEADERS, HEADERS, HEALTH_CHECK, Peer, blocks, head, long_header, raw,
};
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::Options;

const SHED: &str = r#"tollgate_calls_shed_total{listener="grpc"}"#;
pub const PROTOCOL: &str = r#"tollgate_connections_cut_total{listener="grpc",reason="protocol"}"#;

/// `accept-encoding: gzip, deflate` of the static table: one byte, which counts for 60.
const INDEXED: u8 = 0x90;

/// Opens `calls` on each of two connections, with these headers.
fn many(field: &Field, path: &str, calls: usize, more: &[u8]) {
    let mut peers: Vec<_> = (0..2).map(|_| Peer::new(field.at.grpc, 2)).collect();
    for _ in 0..calls {
        if !field.on() {
            break;
        }
        for peer in &mut peers {
            peer.open(path, more);
            peer.drain();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    field.hold();
}

#[test]
fn headers_up_to_the_bound_on_many_calls_do_not_stay() {
    Row {
        name: "60 KiB of headers a call",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 300) + f.slack(),
        attack: &|field| many(field, SHOULD_RATE_LIMIT, 300, &long_header(60_000)),
        effect: None,
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn headers_of_calls_that_are_not_decisions_are_bounded_and_shed() {
    Row {
        name: "1000 headers a health check",
        start: &|| Options::serving(POLICIES).set("listeners.max_pending_bytes=67108864"),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 400) + f.pending() / 4 + f.slack(),
        attack: &|field| many(field, HEALTH_CHECK, 400, &[INDEXED; 1_000]),
        effect: Some((SHED, 100.0)),
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn header_lists_beyond_the_bound_are_refused_or_end_the_connection() {
    Row {
        name: "header lists beyond the bound",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.slack(),
        attack: &|field| {
            // Just beyond: 431. Far beyond: the end of the connection.
            while field.on() {
                let open = |size| {
                    let mut peer = Peer::new(field.at.grpc, 2);
                    for _ in 0..20 {
                        peer.open(SHOULD_RATE_LIMIT, &vec![INDEXED; size]);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                    peer
                };
                assert!(open(1_200).drain());
                let mut ended = open(8_000);
                while field.on() && ended.drain() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        },
        effect: Some((PROTOCOL, 3.0)),
        evidence: &|tollgate| {
            let line = tollgate.wait_for_log("tollgate_connections_cut_total");
            assert!(line.contains("excessive load"), "{line}");
        },
    }
    .run();
}

#[test]
fn continuation_flood_ends_its_connection() {
    Row {
        name: "CONTINUATION flood",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.slack(),
        attack: &|field| {
            while field.on() {
                let mut peer = Peer::new(field.at.grpc, 2);
                let id = peer.stream();
                peer.send(&raw(HEADERS, 0, id, &head(SHOULD_RATE_LIMIT)));
                // Of one byte each: no bound of bytes is reached.
                let flood = raw(CONTINUATION, 0, id, b"\x90").repeat(100);
                while field.on() && peer.drain() && peer.send(&flood) {}
                std::thread::sleep(Duration::from_millis(20));
            }
        },
        effect: Some((PROTOCOL, 3.0)),
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn headers_without_an_end_take_what_a_connection_may() {
    Row {
        name: "half a header list on 100 connections",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(100) + f.idle(100) + f.slack(),
        attack: &|field| {
            let long = blocks(1, &[head(SHOULD_RATE_LIMIT), long_header(60_000)].concat(), 0);
            let fields = blocks(1, &[head(SHOULD_RATE_LIMIT), vec![INDEXED; 1_000]].concat(), 0);
            let open = |i: usize| {
                let mut peer = Peer::new(field.at.grpc, 2);
                peer.send(if i.is_multiple_of(2) { &long } else { &fields });
                std::thread::sleep(Duration::from_millis(2));
                peer
            };
            let _peers: Vec<_> = (0..100).map(open).collect();
            field.hold();
        },
        effect: None,
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn header_tables_filled_on_purpose_take_what_a_connection_may() {
    Row {
        name: "filled header tables on 20 connections",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(20) + f.slack(),
        attack: &|field| {
            let mut peers: Vec<_> = (0..20).map(|_| Peer::new(field.at.grpc, 2)).collect();
            for _ in 0..130 {
                for peer in &mut peers {
                    let id = peer.stream();
                    // An `:authority` that enters the table, and its frame with it.
                    let mut block = vec![0x83, 0x86, 0x84, 0x41, 1, b'a'];
                    block.extend(long_header(16_000));
                    peer.send(&raw(HEADERS, END_HEADERS | 1, id, &block));
                    peer.drain();
                }
                std::thread::sleep(Duration::from_millis(6));
            }
            field.hold();
        },
        effect: None,
        evidence: &|_| {},
    }
    .run();
}
