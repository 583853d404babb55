//! States that no decision has written, and that the script sees through late.

use std::time::Duration;

use tollgate::domain::{Algorithm, Amendment, Change, Charge, Hits, Key, Limit, Timestamp, Told};
use tollgate::redis::RedisSettings;
use tollgate::store::redis::script::{AmendFrame, Script};

use super::compare::{KEEP_MS, command_of, load};
use super::live::{claim, connected, decide, limit, reading, request, state};
use super::redis_server::RedisServer;

const SLIDING: Algorithm = Algorithm::SlidingWindow { slots: 10 };

/// On the short way of the script, which a single claim takes.
#[tokio::test]
async fn senseless_total_of_a_window_that_has_ended_is_counted() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    let mut connection = server.connection();
    for (total, unreadable) in [(2f64.powi(53), 0), (2f64.powi(54), 1), (f64::INFINITY, 2)] {
        let raw = state(1, 2, &[0.0, 1.0, total], &[]);
        redis::cmd("SET").arg("ended").arg(raw).exec(&mut connection).unwrap();
        let group = request(vec![claim("ended", limit(SLIDING), Hits::Take(1))]);
        assert_eq!(reading(&decide(&store, &group).await, 0).remaining, 299, "{total}");
        assert_eq!(store.unreadable_states(), unreadable, "{total}");
    }
}

#[test]
fn runs_that_no_decision_leaves_are_no_part_of_an_amendment() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let script = Script::with_manual_time(Script::AMEND.text);
    load(&mut connection, &script);
    let (now, second) = (1_795_000_000_000_000, Duration::from_secs(1));
    let limit = Limit::new(10, second, SLIDING, Charge::Admitted).unwrap();
    let charged_at = Timestamp::from_micros(now - 20);
    let changes = [
        (Change::GiveBack { hits: 3, charged_at }, 2),
        (Change::Tell(Told::Sliding { hits: 3, age: 5 }), 3),
    ];
    let run = now as f64 - 10.0;
    let damages = [[run, -7.0], [run, f64::NAN], [f64::NAN, 7.0], [run + 1e9, 7.0]];
    for ((change, mut expected), damage) in changes.iter().flat_map(|c| damages.map(|d| (*c, d))) {
        // A run without a time leaves a sum that makes no sense, so the state counts as empty.
        if damage[0].is_nan() && matches!(change, Change::GiveBack { .. }) {
            expected = 0;
        }
        let raw = state(1, 2, &[&[run, 2.0, 5.0][..], &damage, &[run - 1e6, 7.0]].concat(), &[]);
        redis::cmd("SET").arg("runs").arg(raw).exec(&mut connection).unwrap();
        let mut frame = AmendFrame::default();
        frame.push(&Amendment { key: Key::new(*b"runs"), limit, change });
        let mut command = command_of(&script, frame.keys(), frame.args());
        let integers = command.arg(now).arg(KEEP_MS).query(&mut connection).unwrap();
        assert_eq!(frame.amounts(integers), Ok(vec![expected]), "{change:?}");
    }
}
