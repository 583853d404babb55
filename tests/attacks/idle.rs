//! Connections that do nothing.

use std::time::{Duration, Instant};

use crate::field::{POLICIES, Row};
use crate::peer::Peer;
use crate::support::tollgate::Options;
use crate::support::wait::PATIENCE;

#[test]
fn five_thousand_idle_connections_take_what_idle_ones_may() {
    Row {
        name: "5000 idle connections",
        start: &|| Options::serving(POLICIES),
        house: None,
        allowed: &|f| f.idle(5_000) + f.slack(),
        attack: &|field| {
            let mut held = Vec::new();
            for last in 2..8 {
                // One address may have 1000.
                for _ in 0..if last < 7 { 1_000 } else { 1 } {
                    held.push(Peer::new(field.at.grpc, last));
                    if held.len() % 20 == 0 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
            for _ in 0..10 {
                held.push(Peer::new(field.at.grpc, 2));
            }
            field.hold();
            let mut open = || held.iter_mut().map(Peer::drain).filter(|open| *open).count();
            let late = Instant::now() + PATIENCE;
            while open() != 5_001 {
                assert!(Instant::now() < late, "{} are open", open());
                std::thread::sleep(Duration::from_millis(50));
            }
        },
        effect: Some((
            r#"tollgate_connections_refused_total{listener="grpc",reason="bound"}"#,
            10.0,
        )),
        evidence: &|_| {},
    }
    .run();
}
