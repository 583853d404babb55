//! Proof that the comparison sees faults: each change to the script must be convicted by some trace.

use redis::Connection;
use tollgate::store::redis::script::Script;

use super::compare::{Difference, compare, load};
use super::redis_server::RedisServer;

/// How many traces a fault may survive.
const TRACES: u64 = 10_000;

/// What it breaks, text of the script, and what stands there instead.
const MUTANTS: [(&str, &str, &str); 24] = [
    (
        "a bucket without carry",
        "lag_after, rest_after = lag_after + 1,",
        "lag_after, rest_after = lag_after,",
    ),
    (
        "a bucket without borrow",
        "return a - b - 1, a_rest - b_rest + rate",
        "return a - b, a_rest - b_rest + rate",
    ),
    (
        "the remainder not compared",
        "lag_after == full and rest_after <= full_rest",
        "lag_after == full",
    ),
    ("a bucket of one less", "rest_after <= full_rest", "rest_after < full_rest"),
    (
        "a new rate rounded down",
        "written_rate + rest) / rate * (1 + 2 ^ -50)) + 1",
        "written_rate + rest) / rate * (1 + 2 ^ -50))",
    ),
    ("a new rate ignored", "if rate ~= written_rate and", "if rate == 0 and"),
    ("a full bucket forgotten late", "if full_at >= now then", "if full_at > now then"),
    (
        "a debt without bound",
        "lag, rest = lag_after, rest_after\n      if lag > ceiling",
        "lag, rest = lag_after, rest_after\n      if lag > 2 * ceiling",
    ),
    ("a run kept too long", "if time + period > now then", "if time + period >= now then"),
    ("a window kept too long", "if newest + period <= now then", "if newest + period < now then"),
    (
        "runs in one cell kept apart",
        "if total > 0 and (full or same_cell) then",
        "if total > 0 and full then",
    ),
    ("one run too many", "#older / 16 + 1 > slots", "#older / 16 > slots"),
    (
        "a joined run that keeps its time",
        "newest, total = now, total_after",
        "newest, total = max(newest, now - 1), total_after",
    ),
    (
        "the newest run refunded first",
        "return max(hits - given, 0), sub(older, first)",
        "return max(hits - given, 0), older",
    ),
    (
        "a refund lost",
        "return hits, pack('<dd', time, count - given)",
        "return hits, pack('<dd', time, count)",
    ),
    (
        "a wait one run too long",
        "if left + hits <= capacity then",
        "if left + hits < capacity then",
    ),
    ("runs that move together", "max(time - (newest - now), 0)", "now"),
    (
        "a window ahead not pulled back",
        "if written_start > start + period then",
        "if written_start > start + 2 * period then",
    ),
    (
        "the last window counted",
        "if written_start >= start then",
        "if written_start >= start - period then",
    ),
    (
        "sums without bound",
        "local count_after = min(count + hits, SATURATION)",
        "local count_after = count + hits",
    ),
    ("a failing part charged", "for i = #undo, 1, -1 do", "for i = #undo, 2, -1 do"),
    ("undone in the wrong order", "for i = #undo, 1, -1 do", "for i = 1, #undo do"),
    ("refunds undone by a denial", "for i = 1, #unconditional do", "for i = 2, #unconditional do"),
    (
        "quota descriptors that deny alone",
        "quotas_left = quotas_left or harmless",
        "quotas_left = quotas_left and harmless",
    ),
];

/// The same, for leases.
const LEASE_MUTANTS: [(&str, &str, &str); 15] = [
    (
        "the floor of what is outstanding now forgotten",
        "local total, total_rest = outstanding(leases, rate)\n  if exceeds(total, total_rest, lag, rest) then",
        "local total, total_rest = outstanding(leases, rate)\n  if false then",
    ),
    (
        "the floor at the first expiry forgotten",
        "total = total + leases.early_until - now\n    if total >= 0",
        "total = total + leases.early_until - now\n    if false",
    ),
    (
        "the floor at the last expiry forgotten",
        "total = total + leases.late_until - now\n    if total >= 0",
        "total = total + leases.late_until - now\n    if false",
    ),
    ("an early lease that never ends", "and leases.early_until <= now then", "and false then"),
    ("a late lease that never ends", "and leases.late_until <= now then", "and false then"),
    (
        "a lease that ends early",
        "and leases.late_until <= now then",
        "and leases.late_until <= now + 1 then",
    ),
    ("a lease not charged", "return charged, charged_rest, until_us", "return lag, rest, until_us"),
    (
        "more than may be outstanding",
        "exceeds(after, after_rest, most, most_rest)",
        "exceeds(tokens, tokens_rest, most, most_rest)",
    ),
    ("a lease beyond the bucket", "if exceeds(charged, charged_rest, full, full_rest) or", "if"),
    (
        "a lease that is outstanding for one ttl",
        "now - now % ttl + 2 * ttl",
        "now - now % ttl + ttl",
    ),
    (
        "a report of the wrong lease",
        "finished_until > 0 and finished_until == leases.late_until",
        "finished_until > 0",
    ),
    (
        "a lease beyond the clock not pulled back",
        "return leases, late_until > latest",
        "return leases, false",
    ),
    (
        "leases not converted to a new rate",
        "if written_rate ~= rate and (span > 0 or rest > 0) then",
        "if false then",
    ),
    ("an expiry without leases", "return max(last, leased_until(state))", "return last"),
    (
        "leases that expire at the new rate",
        "expire(leases, lag, rest, written_rate)",
        "expire(leases, lag, rest, rate)",
    ),
];

/// The same, for the decision of whole requests and the writing.
const MORE_MUTANTS: [(&str, &str, &str); 7] = [
    ("a shadow that denies", "local harmless = passed or roles >= 2", "local harmless = passed"),
    (
        "one quota enough to deny",
        "denied = denied or (quotas and not quotas_left)",
        "denied = denied or quotas",
    ),
    ("each taken as together", "commit ~= EACH and denied", "denied"),
    ("a trial that charges", "local undo = commit == NEVER or", "local undo ="),
    ("a trial that settles", "commit == NEVER and before or settled", "settled"),
    ("the state before the last touch", "and not undo_group[slot] then", "then"),
    (
        "a key written without need",
        "if state and state ~= before then",
        "renewed[slot] = renewed[slot] or state == before\n  if state ~= before or state ~= EMPTY then",
    ),
];

/// The same, for several limits in turn on one bucket.
const REACH_MUTANTS: [(&str, &str, &str); 6] = [
    (
        "a state pulled back by a smaller limit",
        "local furthest_us, furthest_rest = furthest(limit, written_reach, written_rate)",
        "local furthest_us, furthest_rest = ceiling, ceiling_rest",
    ),
    (
        "a state that no clock pulls back",
        "pulled_back = lag > furthest_us or (lag == furthest_us and rest > furthest_rest)",
        "pulled_back = false",
    ),
    (
        "a debt cut by a smaller limit",
        "passed, charged = false, false",
        "passed, charged = false, kind == TAKE and limit[1] == 1",
    ),
    ("a reach lost by a refund", "reach = written_reach", "reach = limit[7]"),
    (
        "a reach rounded down",
        "/ written_rate * (1 + 2 ^ -50)) + 1, SATURATION), 0",
        "/ written_rate * (1 + 2 ^ -50)), SATURATION), 0",
    ),
    (
        "a larger limit's lag reported",
        "if used_up and exceeds(lag, rest, ceiling, ceiling_rest) then\n    lag, rest = ceiling, ceiling_rest",
        "if false then\n    lag, rest = ceiling, ceiling_rest",
    ),
];

/// The same, for expiries and for writing over a state.
const EXPIRY_MUTANTS: [(&str, &str, &str); 12] = [
    (
        "an expiry too early",
        "(expiry - now) / 1000 + 2 + keep_ms",
        "(expiry - now) / 1000 + keep_ms",
    ),
    (
        "an expiry rounded down",
        "last - last % EXPIRY_STEP + EXPIRY_STEP",
        "last - last % EXPIRY_STEP",
    ),
    (
        "a bucket that outlives its expiry",
        "full_at - full_at % EXPIRY_STEP ~= full_after - full_after % EXPIRY_STEP",
        "false",
    ),
    (
        "a bucket with leases that outlives its expiry",
        "if leases or not full_at or",
        "if not full_at or",
    ),
    (
        "a bucket pulled back that keeps its expiry",
        "state, renewed[slot] = pack_bucket(lag, rest, written_rate, written_reach, leases), true",
        "state = pack_bucket(lag, rest, written_rate, written_reach, leases)",
    ),
    (
        "runs that outlive their expiry",
        "last - last % EXPIRY_STEP ~= last_after - last_after % EXPIRY_STEP",
        "false",
    ),
    (
        "runs pulled back that keep their expiry",
        "state, renewed[slot] = pull_runs_back(state, newest, newest_hits, total), true",
        "state = pull_runs_back(state, newest, newest_hits, total)",
    ),
    ("a window that outlives its expiry", "renewed[slot] or not counted", "renewed[slot]"),
    (
        "a window pulled back that keeps its expiry",
        "state, renewed[slot] = pack('<BBdd', VERSION, FIXED_WINDOW, written_start, written_count), true",
        "state = pack('<BBdd', VERSION, FIXED_WINDOW, written_start, written_count)",
    ),
    ("runs of no hits that stay", "pack('<dd', -2 * SATURATION, 0)", "pack('<dd', now, 0)"),
    ("runs of no hits pulled back", "if count > 0 then", "if true then"),
    (
        "a shorter state written over a longer one",
        "#state >= #before and before ~= EMPTY and not renewed",
        "before ~= EMPTY and not renewed",
    ),
];

#[test]
fn every_mutant_is_convicted() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let mut survivors = Vec::new();
    let all = MUTANTS
        .iter()
        .chain(&LEASE_MUTANTS)
        .chain(&MORE_MUTANTS)
        .chain(&EXPIRY_MUTANTS)
        .chain(&REACH_MUTANTS);
    for (fault, text, instead) in all {
        assert_eq!(Script::BODY.matches(text).count(), 1, "{fault}: the text must match once");
        let script = Script::with_manual_time(&Script::BODY.replace(text, instead));
        match convicted_at(&mut connection, &script) {
            Some(seed) => println!("{fault}: seed {seed}"),
            None => survivors.push(fault),
        }
    }
    assert!(survivors.is_empty(), "not convicted: {survivors:?}");
}

/// The first trace on which the script decides otherwise than the core.
fn convicted_at(connection: &mut Connection, script: &Script) -> Option<u64> {
    load(connection, script);
    (0..TRACES).find(|seed| match compare(connection, script, *seed) {
        Ok(()) => false,
        Err(Difference::Wrong(_)) => true,
        Err(difference) => panic!("a mutant must run: {difference:?}"),
    })
}
