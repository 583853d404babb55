//! An answer that comes too late to be read: what it holds is free again.

use std::time::{Duration, Instant};

use prost::Message as _;
use tollgate::edge::pb::RateLimitResponse;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::conn::Conn;
use crate::peer::{DATA, END_STREAM, RESET, raw};
use crate::support::engines::ENGINES;
use crate::support::grpc::{SHOULD_RATE_LIMIT, frame};
use crate::support::tollgate::{Options, request};

const POLICY: &str = "
domain: d
descriptors:
  - {key: one, rate_limit: {algorithm: concurrency, max: 1, ttl: 1m}}
";

/// Far below the `ttl`, after which a slot is free in any case.
const PATIENCE: Duration = Duration::from_secs(10);

fn message() -> Vec<u8> {
    frame(false, &request("d", &[&[("one", "v")]]).encode_to_vec()).to_vec()
}

fn is_admitted(conn: &mut Conn) -> bool {
    let id = conn.call(SHOULD_RATE_LIMIT);
    conn.finish(id, &message());
    let answer = conn.whole_answer(id).expect("an answer");
    let response = RateLimitResponse::decode(&answer.body[5..]).unwrap();
    response.overall_code() == Code::Ok
}

#[test]
fn call_that_is_cancelled_with_its_message_keeps_no_slot() {
    for engine in ENGINES {
        let tollgate = Options::serving(POLICY).engine(engine).start();
        let mut conn = Conn::open(tollgate.at.grpc, &[]);
        for _ in 0..20 {
            let id = conn.call(SHOULD_RATE_LIMIT);
            let data = raw(DATA, END_STREAM, id, &message());
            conn.send(&[data, raw(RESET, 0, id, &8_u32.to_be_bytes())].concat());
        }
        let late = Instant::now() + PATIENCE;
        while !is_admitted(&mut conn) {
            assert!(Instant::now() < late, "{engine}: the slot of a call that is cancelled");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!is_admitted(&mut conn), "{engine}: the last call has the slot");
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}
