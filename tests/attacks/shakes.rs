//! TLS handshakes: half open, and many.

use std::io::Write as _;
use std::time::Duration;

use crate::field::{Field, Row};
use crate::peer::connect;
use crate::tls::House;

fn refused(reason: &str) -> String {
    format!(r#"tollgate_connections_refused_total{{listener="grpc",reason="{reason}"}}"#)
}

#[test]
fn half_open_handshakes_are_bounded_and_end() {
    let house = House::new();
    Row {
        name: "half-open handshakes",
        start: &|| house.tollgate().set("listeners.handshake_timeout=500ms"),
        house: Some(&house),
        allowed: &|f| f.handshakes(128) + f.slack(),
        attack: &|field| {
            let mut held = Vec::new();
            for last in 2..4 {
                for _ in 0..200 {
                    let mut stream = connect(field.at.grpc, last);
                    // The beginning of a record that has 16 KiB.
                    drop(stream.write_all(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"));
                    held.push(stream);
                }
            }
            field.hold();
        },
        effect: None,
        evidence: &|tollgate| {
            // A quarter of 256 for each address.
            tollgate.wait_for_metric(&refused("bound"), 2.0 * (200.0 - 64.0));
            tollgate.wait_for_metric(&refused("late"), 100.0);
            let line = tollgate.wait_for_log("listeners.max_handshakes");
            assert!(line.contains("connection was closed"), "{line}");
        },
    }
    .run();
}

fn flood(house: &House, field: &Field) {
    std::thread::scope(|scope| {
        for last in 2..6 {
            scope.spawn(move || {
                while field.on() {
                    drop(house.connect(field.at.grpc, last));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
}

#[test]
fn flood_of_handshakes_does_not_hold_up_decisions() {
    let house = House::new();
    Row {
        name: "flood of handshakes",
        start: &|| house.tollgate(),
        house: Some(&house),
        allowed: &|f| f.tls(16) + f.idle(16) + f.handshakes(16) + f.slack(),
        attack: &|field| flood(&house, field),
        effect: Some((r#"tollgate_tls_handshakes_total{listener="grpc"}"#, 31.0)),
        evidence: &|_| {},
    }
    .run();
}
