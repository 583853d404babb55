//! Ends of connections: GOAWAY on shutdown and at the maximum age, with calls in flight; pings.
//!
//! Source: RFC 9113, sections 6.7 and 6.8.

use std::time::{Duration, Instant};

use crate::POLICIES;
use crate::conn::Conn;
use crate::corners::{code, message};
use crate::support::engines::ENGINES;
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::Options;

const CALLS: usize = 20;

/// Calls without an end.
fn in_flight(conn: &mut Conn) -> Vec<u32> {
    let calls = (0..CALLS).map(|_| conn.call(SHOULD_RATE_LIMIT)).collect();
    assert!(conn.is_read());
    calls
}

/// After a GOAWAY without an error all of these are answered, then the connection is closed.
fn all_are_answered_before_the_end(conn: &mut Conn, calls: &[u32]) {
    while conn.goaways.is_empty() {
        assert!(conn.frame().is_some(), "closed without GOAWAY");
    }
    // Both of a graceful end, where there are two.
    assert!(conn.is_read());
    for (last, number) in &conn.goaways {
        assert_eq!(code(*number), "NO_ERROR");
        assert!(last >= calls.last().unwrap(), "{:?}", conn.goaways);
    }
    for id in calls {
        conn.finish(*id, &message());
    }
    for id in calls {
        let answer = conn.whole_answer(*id).expect("an answer before the end");
        assert_eq!(answer.status(), Some("0"), "{answer:?}");
    }
    while conn.frame().is_some() {}
}

#[test]
fn calls_in_flight_are_answered_on_shutdown() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine).set("grpc.drain_delay=0s");
        let mut tollgate = options.start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        let calls = in_flight(&mut conn);
        tollgate.signal("TERM");
        all_are_answered_before_the_end(&mut conn, &calls);
        assert_eq!(tollgate.wait().code(), Some(0), "{engine}");
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

#[test]
fn calls_in_flight_are_answered_at_the_maximum_age() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let tollgate = options.set("grpc.max_connection_age=300ms").start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        let (calls, begun) = (in_flight(&mut conn), Instant::now());
        all_are_answered_before_the_end(&mut conn, &calls);
        assert!(begun.elapsed() > Duration::from_millis(200), "{engine}: {:?}", begun.elapsed());
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

#[test]
fn idle_connection_is_closed_at_the_maximum_age() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let tollgate = options.set("grpc.max_connection_age=300ms").start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        while conn.frame().is_some() {}
        let codes: Vec<_> = conn.goaways.iter().map(|(_, number)| code(*number)).collect();
        assert!(
            !codes.is_empty() && codes.iter().all(|code| *code == "NO_ERROR"),
            "{engine}: {codes:?}"
        );
    }
}

/// Calls that do not finish end with the connection after the drain timeout.
#[test]
fn calls_that_do_not_finish_do_not_delay_the_end_for_long() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine).set("grpc.drain_delay=0s");
        let mut tollgate = options.set("grpc.drain_timeout=500ms").start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        in_flight(&mut conn);
        let begun = Instant::now();
        tollgate.signal("TERM");
        while conn.frame().is_some() {}
        assert_eq!(tollgate.wait().code(), Some(0), "{engine}");
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(400), "{engine}: {took:?}");
        assert!(took < Duration::from_secs(8), "{engine}: {took:?}");
    }
}

#[test]
fn peer_that_answers_no_ping_is_closed() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let options = options.set("grpc.keepalive_interval=200ms");
        let tollgate = options.set("grpc.keepalive_timeout=500ms").start();
        let mut answering = Conn::open(tollgate.at.grpc, &[]);
        let mut silent = Conn::open(tollgate.at.grpc, &[]);
        silent.answers_pings = false;
        // A call keeps both alive in the sense of gRPC.
        let held = answering.call(SHOULD_RATE_LIMIT);
        silent.call(SHOULD_RATE_LIMIT);
        let other = std::thread::spawn(move || while silent.frame().is_some() {});
        while !other.is_finished() {
            assert!(
                answering.frame_within(Duration::from_millis(100)).is_err() || !answering.closed
            );
        }
        answering.finish(held, &message());
        let answer = answering.whole_answer(held).expect("an answer");
        assert_eq!(answer.status(), Some("0"), "{engine}: {answer:?}");
        let series = "tollgate_connections_cut_total{listener=\"grpc\",reason=\"silent\"}";
        tollgate.wait_for_metric(series, 1.0);
    }
}
