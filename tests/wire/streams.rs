//! The bound of concurrent streams.
//!
//! Source: RFC 9113, section 5.1.2.

use crate::POLICIES;
use crate::conn::{Conn, MAX_CONCURRENT_STREAMS};
use crate::corners::{code, message};
use crate::peer::{RESET, raw};
use crate::support::engines::ENGINES;
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::Options;

/// A new call; it has an answer.
fn is_served(conn: &mut Conn) {
    let id = conn.call(SHOULD_RATE_LIMIT);
    conn.finish(id, &message());
    assert_eq!(conn.whole_answer(id).expect("an answer").status(), Some("0"));
}

#[test]
fn calls_beyond_the_bound_are_refused_and_places_come_back() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let tollgate = options.set("listeners.max_streams=20").start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        let bound = conn.settings[&MAX_CONCURRENT_STREAMS];
        assert_eq!(bound, 20, "{engine}");
        let held: Vec<_> = (0..bound).map(|_| conn.call(SHOULD_RATE_LIMIT)).collect();
        for _ in 0..3 {
            let beyond = conn.call(SHOULD_RATE_LIMIT);
            let answer = conn.whole_answer(beyond).expect("the connection stays");
            assert_eq!(answer.reset.map(code), Some("REFUSED_STREAM"), "{engine}: {answer:?}");
        }
        // Others have places of their own.
        is_served(&mut Conn::open(tollgate.at.grpc, &[]));
        // One is cancelled, one is finished: both places are free.
        conn.send(&raw(RESET, 0, held[0], &8_u32.to_be_bytes()));
        is_served(&mut conn);
        conn.finish(held[1], &message());
        assert_eq!(conn.whole_answer(held[1]).unwrap().status(), Some("0"), "{engine}");
        is_served(&mut conn);
        // All that were held are served in the end.
        for id in &held[2..] {
            conn.finish(*id, &message());
        }
        for id in &held[2..] {
            assert_eq!(conn.whole_answer(*id).unwrap().status(), Some("0"), "{engine}");
        }
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

/// More calls than may be concurrent, but each is over before the next: no bound is met.
#[test]
fn many_calls_one_after_the_other_need_one_place() {
    for engine in ENGINES {
        let options = Options::serving(POLICIES).engine(engine);
        let tollgate = options.set("listeners.max_streams=1").start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        for _ in 0..200 {
            is_served(&mut conn);
        }
    }
}
