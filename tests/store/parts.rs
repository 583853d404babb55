//! Functions of single parts of the script, called in a real Redis: a test head sets the time, the parts up to the one under
//! test follow, and the results of one expression are returned.

use redis::Connection;
use tollgate::store::redis::script::Script;

use super::redis_server::RedisServer;

/// Microseconds.
const NOW: u64 = 10_000_000;

/// The values of `expression` after the parts up to `last`.
fn eval(connection: &mut Connection, last: &str, expression: &str) -> Vec<String> {
    let end = Script::DECIDE.files.iter().position(|(name, _)| *name == last).expect("a part") + 1;
    let parts: String = Script::DECIDE.files[..end].iter().map(|(_, text)| *text).collect();
    let text = format!(
        "local now, keep_ms = {NOW}, 0\n{parts}\n\
         local results = {{ {expression} }}\n\
         for i = 1, #results do results[i] = tostring(results[i]) end\n\
         return results"
    );
    redis::cmd("EVAL").arg(text).arg(0).arg("").arg("").query(connection).expect(expression)
}

fn check(last: &str, cases: &[(&str, &[&str])]) {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    for (expression, expected) in cases {
        assert_eq!(eval(&mut connection, last, expression), *expected, "{expression}");
    }
}

#[test]
fn spans_carry_borrow_and_compare() {
    check(
        "30_span.lua",
        &[
            ("plus(5, 3, 2, 3, 7)", &["7", "6"]),
            ("plus(5, 4, 2, 3, 7)", &["8", "0"]),
            ("plus(5, 6, 2, 6, 7)", &["8", "5"]),
            ("minus(5, 3, 2, 3, 7)", &["3", "0"]),
            ("minus(5, 2, 2, 3, 7)", &["2", "6"]),
            ("minus(2, 3, 2, 3, 7)", &["0", "0"]),
            ("minus(2, 2, 2, 3, 7)", &["0", "0"]),
            ("minus(1, 6, 2, 0, 7)", &["0", "0"]),
            ("exceeds(2, 3, 2, 3)", &["false"]),
            ("exceeds(2, 4, 2, 3)", &["true"]),
            ("exceeds(1, 6, 2, 0)", &["false"]),
        ],
    );
}

#[test]
fn spans_at_a_new_rate_round_up_and_saturate() {
    check(
        "30_span.lua",
        &[
            // A hit at 3 per period takes twice the time at half the rate; one more microsecond is the rounding.
            ("at_new_rate(600, 0, 10, 5)", &["1201"]),
            ("at_new_rate(0, 1, 10, 5)", &["1"]),
            ("at_new_rate(SATURATION, 0, 10, 1) == SATURATION", &["true"]),
        ],
    );
}

#[test]
fn leases_expire_at_their_time_and_leave_their_floor() {
    let leases = |early_until: u64, late_until: u64| {
        format!(
            "expire({{ early_until = {early_until}, early = 100, early_rest = 1, \
             late_until = {late_until}, late = 50, late_rest = 1 }}, 0, 0, 7)"
        )
    };
    let cases = [
        // Neither has expired: the floor is what is outstanding now.
        (leases(NOW + 1, NOW + 2), ["150", "2"]),
        // The first expired 30 us ago, when 150 us were outstanding: 120 us of them are left.
        (leases(NOW - 30, NOW + 2), ["120", "2"]),
        // Both expired long ago.
        (leases(NOW - 2_000, NOW - 1_000), ["0", "0"]),
    ];
    let cases: Vec<_> = cases.iter().map(|(call, floor)| (call.as_str(), &floor[..])).collect();
    check("40_lease.lua", &cases);
}

#[test]
fn runs_count_until_the_window_leaves_them() {
    let runs = |newest: u64, older: [u64; 2]| {
        format!(
            "(function() \
             local state = pack(SLIDING, 1, 2, {newest}, 1, 6) .. pack(RUN, {}, 2) .. pack(RUN, {}, 3) \
             local newest, hits, total, older = runs_in_window(state, 1000, {newest}, 1, 6) \
             return newest, hits, total, #older end)()",
            older[0], older[1]
        )
    };
    let cases = [
        (runs(NOW, [NOW - 999, NOW - 1]), ["10000000", "1", "6", "32"]),
        (runs(NOW, [NOW - 1_000, NOW - 999]), ["10000000", "1", "4", "16"]),
        (runs(NOW - 999, [NOW - 1_001, NOW - 1_000]), ["9999001", "1", "1", "0"]),
        (runs(NOW - 1_000, [NOW - 1_002, NOW - 1_001]), ["0", "0", "0", "0"]),
    ];
    let cases: Vec<_> = cases.iter().map(|(call, left)| (call.as_str(), &left[..])).collect();
    check("51_sliding_window.lua", &cases);
}
