//! Frames that cost their sender little: empty ones, those that change nothing, and references to a
//! large header.

use std::time::Duration;

use crate::field::{Field, POLICIES, Row};
use crate::headers::PROTOCOL;
use crate::peer::{
    DATA, END_HEADERS, HEADERS, Peer, SETTINGS, WINDOW_UPDATE, head, long_header, raw,
};
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::Options;

const PRIORITY: u8 = 2;
/// A type of frame that no standard knows.
const UNKNOWN: u8 = 0xfa;

/// `SETTINGS_INITIAL_WINDOW_SIZE`, in a frame of one setting.
fn window(bytes: u32) -> Vec<u8> {
    raw(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat())
}

/// Sends `frames` again and again on two connections with an open call each, and reads.
fn repeat(field: &Field, frames: impl Fn(u32) -> Vec<u8>) {
    while field.on() {
        let mut peers = [Peer::new(field.at.grpc, 2), Peer::new(field.at.grpc, 3)];
        let ids = peers.each_mut().map(|peer| peer.open(SHOULD_RATE_LIMIT, &[]));
        let floods = ids.map(&frames);
        let mut send = || {
            let both = peers.iter_mut().zip(&floods);
            both.fold(true, |open, (peer, flood)| open & (peer.send(flood) && peer.drain()))
        };
        while field.on() && send() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A flood of frames that may go on, or end its connection.
fn harmless(name: &'static str, frames: fn(u32) -> Vec<u8>) {
    Row {
        name,
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(4) + f.calls(4) + f.slack(),
        attack: &|field| repeat(field, frames),
        effect: None,
        evidence: &|_| {},
    }
    .run();
}

#[test]
fn empty_data_takes_nothing() {
    harmless("empty DATA flood", |id| raw(DATA, 0, id, &[]).repeat(500));
}

#[test]
fn padding_takes_nothing() {
    let padded = |id| raw(DATA, 8, id, &[&[255][..], &[0; 255]].concat()).repeat(50);
    harmless("DATA of padding", padded);
}

#[test]
fn window_updates_of_one_byte_take_nothing() {
    let updates = |id| {
        let one = 1_u32.to_be_bytes();
        [raw(WINDOW_UPDATE, 0, 0, &one), raw(WINDOW_UPDATE, 0, id, &one)].concat().repeat(250)
    };
    harmless("WINDOW_UPDATE flood", updates);
}

#[test]
fn settings_that_change_the_windows_take_nothing() {
    let change = |_| [window(0), window(1 << 20)].concat().repeat(100);
    harmless("SETTINGS that change windows", change);
}

#[test]
fn frames_without_a_meaning_take_nothing() {
    let frames = |id| {
        let priority = raw(PRIORITY, 0, id, &[0, 0, 0, 0, 16]);
        [priority, raw(UNKNOWN, 255, 0, &[0; 64])].concat().repeat(250)
    };
    harmless("PRIORITY and unknown frames", frames);
}

#[test]
fn windows_of_nothing_and_of_too_much_end_the_connection() {
    Row {
        name: "windows of nothing and of too much",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.slack(),
        attack: &|field| {
            for bytes in [0, (1_u32 << 31) - 1].into_iter().cycle() {
                if !field.on() {
                    break;
                }
                let mut peer = Peer::new(field.at.grpc, 2);
                peer.send(&raw(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes()));
                while field.on() && peer.drain() {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        },
        effect: Some((PROTOCOL, 4.0)),
        evidence: &|_| {},
    }
    .run();
}

/// Each is refused, and a peer that goes on loses its connection.
#[test]
fn calls_beyond_the_bound_end_the_connection() {
    Row {
        name: "calls beyond the bound",
        start: &|| Options::serving(POLICIES).set("listeners.max_streams=16"),
        house: None,
        allowed: &|f| f.filled(2) + f.calls(2 * 16) + f.slack(),
        attack: &|field| {
            while field.on() {
                let mut peer = Peer::new(field.at.grpc, 2);
                while field.on() && peer.drain() {
                    for _ in 0..50 {
                        peer.open(SHOULD_RATE_LIMIT, &[]);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        },
        effect: Some((PROTOCOL, 1.0)),
        evidence: &|_| {},
    }
    .run();
}

/// A header of 4000 bytes enters the table, and each byte of the next block refers to it.
#[test]
fn references_to_a_large_header_are_bounded() {
    Row {
        name: "references to a large header",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.filled(2) + f.slack(),
        attack: &|field| {
            while field.on() {
                let mut peer = Peer::new(field.at.grpc, 2);
                let mut first = head(SHOULD_RATE_LIMIT);
                let mut header = long_header(4_000);
                // With incremental indexing.
                header[0] = 0x40;
                first.extend(header);
                let id = peer.stream();
                peer.send(&raw(HEADERS, END_HEADERS, id, &first));
                // 16 MB by 4 KB.
                let bomb = [head(SHOULD_RATE_LIMIT), vec![0xbe; 4_000]].concat();
                while field.on() && peer.drain() {
                    let id = peer.stream();
                    peer.send(&raw(HEADERS, END_HEADERS, id, &bomb));
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        },
        effect: Some((PROTOCOL, 1.0)),
        evidence: &|_| {},
    }
    .run();
}
