//! Proof that the comparison sees faults: each change to the script must be convicted by some trace.
//!
//! A comment `--@mark` at the end of a line of the script names a point that a fault changes. A mutant has another line
//! there.

use std::collections::BTreeSet;

use redis::Connection;
use tollgate::store::redis::script::Script;

use super::compare::{Difference, compare, load};
use super::redis_server::RedisServer;

/// How many traces a fault may survive.
const TRACES: u64 = 10_000;

/// The fault, the mark of a line of the script, and the line that takes its place.
pub type Mutant = (&'static str, &'static str, &'static str);

/// Faults of the algorithms.
const MUTANTS: &[Mutant] = &[
    ("a bucket without carry", "carry", "lag_after, rest_after = lag_after, rest_after - rate"),
    ("a bucket without borrow", "borrow", "return a - b, a_rest - b_rest + rate"),
    ("the remainder not compared", "fits", "passed = lag_after < full or lag_after == full"),
    (
        "a bucket of one less",
        "fits",
        "passed = lag_after < full or (lag_after == full and rest_after < full_rest)",
    ),
    (
        "a new rate rounded down",
        "new-rate-rounds-up",
        "return min(floor((span * written_rate + rest) / rate * (1 + 2 ^ -50)), SATURATION)",
    ),
    (
        "a new rate ignored",
        "new-rate",
        "if rate == 0 and (full_at >= now or lag > 0 or rest > 0) then",
    ),
    ("a full bucket forgotten late", "full-now", "if full_at > now then"),
    (
        "a debt without bound",
        "debt-bound",
        "if lag > 2 * ceiling or (lag == ceiling and rest > ceiling_rest) then",
    ),
    ("a run kept too long", "run-end", "if time + period >= now then"),
    ("a window kept too long", "window-end", "if newest + period < now then"),
    ("runs in one cell kept apart", "same-cell", "if total > 0 and full then"),
    ("one run too many", "slots", "local full = #older / RUN_SIZE > slots"),
    (
        "a joined run that keeps its time",
        "joined-run",
        "newest, total = max(newest, now - 1), total_after",
    ),
    ("the newest run refunded first", "newest-refund", "return max(hits - given, 0), older"),
    ("a refund lost", "run-refund", "return hits, pack(RUN, time, count) .. sub(older, first)"),
    ("a wait one run too long", "fits-after-run", "if left + hits < capacity then"),
    ("runs that move together", "distances", "moved[#moved + 1] = pack(RUN, now, count)"),
    ("a window ahead not pulled back", "window-ahead", "if written_start > stop + period then"),
    ("the last window counted", "this-window", "elseif written_start >= start - period then"),
    (
        "a window ahead as long as this one",
        "next-period",
        "period = start == stop and period or stop - start",
    ),
    ("a window of a calendar that does not begin", "calendar-current", "elseif now > second then"),
    ("a window of a calendar that does not end", "calendar-next", "if now > third then"),
    ("sums without bound", "bounded-count", "local count_after = count + hits"),
];

/// Faults of hits that are booked.
const BOOK_MUTANTS: &[Mutant] = &[
    ("a booking that always passes", "booked-fits", "passed = true"),
    ("a debt of one capacity beyond a charge", "booked-cost", "if false then"),
    ("a charge that is always a capacity", "booked-cost", "if true then"),
    ("a debt beyond the ceiling", "booked-ceiling", "if false then"),
    ("a debt of a bucket without bound", "booked-bound", "if false then"),
    ("a larger debt cut", "booked-larger-debt", "charged = true"),
    ("a booking lost", "booked-larger-debt", "charged = passed"),
    (
        "a debt of a window without bound",
        "booked-runs-bound",
        "total_after = min(total_after, SATURATION)",
    ),
    (
        "a debt of one capacity whatever was charged",
        "booked-runs-bound",
        "total_after = min(total_after, 2 * capacity)",
    ),
    (
        "a booking that must fit",
        "booked-count",
        "charged = (kind == TAKE or kind == BOOK) and (passed or limit[ALWAYS] == 1)",
    ),
    (
        "a booking undone by a denial",
        "conditional",
        "local conditional = kind ~= REFUND and limits[limit][ALWAYS] == 0",
    ),
];

/// Faults of leases.
const LEASE_MUTANTS: &[Mutant] = &[
    ("the floor of what is outstanding now forgotten", "floor-now", "if false then"),
    ("the floor at the first expiry forgotten", "early-floor", "if false then"),
    ("the floor at the last expiry forgotten", "late-floor", "if false then"),
    ("an early lease that never ends", "early-expiry", "if false then"),
    ("a late lease that never ends", "late-expiry", "if false then"),
    (
        "a lease that ends early",
        "late-expiry",
        "if (leases.late > 0 or leases.late_rest > 0) and leases.late_until <= now + 1 then",
    ),
    ("a lease not charged", "lease-charged", "return lag, rest, until_us"),
    (
        "more than may be outstanding",
        "most-outstanding",
        "elseif exceeds(tokens, tokens_rest, ask.most, ask.most_rest) then",
    ),
    ("a lease beyond the bucket", "lease-within-bucket", "if false then"),
    (
        "a lease that is outstanding for one ttl",
        "lease-expiry",
        "until_us = max(now - now % ask.ttl + ask.ttl, leases.late_until)",
    ),
    ("a report of the wrong lease", "finished-late", "elseif until_us > 0 then"),
    ("a lease beyond the clock not pulled back", "lease-beyond-clock", "return leases, false"),
    ("leases not converted to a new rate", "leases-at-new-rate", "if false then"),
    ("an expiry without leases", "expiry-after-leases", "return last_us"),
    (
        "leases that expire at the new rate",
        "expiry-at-written-rate",
        "lag, rest = expire(leases, lag, rest, rate)",
    ),
];

/// Faults of the decision of whole requests, and of the writing.
const GROUP_MUTANTS: &[Mutant] = &[
    ("a failing part charged", "part-undo", "for i = #part_undo, 2, -1 do"),
    ("undone in the wrong order", "part-undo", "for i = 1, #part_undo do"),
    ("refunds undone by a denial", "unconditional", "for i = 2, #unconditional do"),
    ("quota descriptors that deny alone", "quotas-left", "quotas_left = quotas_left and harmless"),
    ("a shadow that denies", "shadow", "local harmless = passed"),
    ("one quota enough to deny", "quotas", "denied = denied or quotas"),
    ("each taken as together", "undo", "local undo = commit == NEVER or denied"),
    ("a trial that charges", "undo", "local undo = commit ~= EACH and denied"),
    ("a trial that settles", "trial-settles", "group_undo[slot] = settled"),
    ("the state before the last touch", "first-touch", "if group_undo and slot > 0 then"),
    (
        "a key written without need",
        "changed",
        "renewed[slot] = renewed[slot] or state == before\n  if state ~= before or state ~= EMPTY then",
    ),
];

/// Faults of several limits in turn on one bucket.
const REACH_MUTANTS: &[Mutant] = &[
    ("a state pulled back by a smaller limit", "furthest", "if false then"),
    ("a state that no clock pulls back", "pulled-back", "if false then"),
    (
        "a debt cut by a smaller limit",
        "larger-debt",
        "passed, charged = false, kind == TAKE and limit[ALWAYS] == 1",
    ),
    ("a reach lost by a refund", "reach-kept", "reach = limit[BUCKET_REACH]"),
    ("a reach rounded down", "reach-rounds-up", "return min(floor(lag), SATURATION)"),
    ("a larger limit's lag reported", "own-ceiling", "if false then"),
];

/// Faults of expiries, and of writing over a state.
const EXPIRY_MUTANTS: &[Mutant] = &[
    ("an expiry too early", "ttl", "local ttl_ms = (expiry_us - now) / 1000 + keep_ms"),
    (
        "an expiry rounded down",
        "expiry-rounds-up",
        "local expiry_us = last_us - last_us % EXPIRY_STEP_US",
    ),
    ("a bucket that outlives its expiry", "expiry-step", "if not full_at then"),
    ("a bucket with leases that outlives its expiry", "expiry-of-leases", "elseif false then"),
    (
        "a bucket pulled back that keeps its expiry",
        "pulled-back-expiry",
        "state = pack_bucket(lag, rest, written_rate, written_reach, leases)",
    ),
    ("runs that outlive their expiry", "expiry-of-runs", "if false then"),
    (
        "runs pulled back that keep their expiry",
        "pulled-runs-expiry",
        "state = pull_runs_back(state, newest, newest_hits, total)",
    ),
    ("a window that outlives its expiry", "expiry-of-window", "renewed[slot] = renewed[slot]"),
    ("a window pulled back that keeps its expiry", "pulled-window-expiry", ""),
    ("runs of no hits that stay", "no-run", "local NO_RUN = pack(RUN, now, 0)"),
    ("runs of no hits pulled back", "padding-dropped", "if true then"),
    (
        "a shorter state written over a longer one",
        "overwrites",
        "elseif before ~= EMPTY and not renewed[slot] then",
    ),
];

/// Faults of the short way.
const SHORT_MUTANTS: &[Mutant] = &[
    ("a claim behind an empty group taken", "short-first", ""),
    ("refunds taken", "short-kind", ""),
    ("limits that always charge taken", "short-always", ""),
    (
        "a bucket without carry",
        "short-carry",
        "lag_after, rest_after = lag_after, rest_after - rate",
    ),
    ("the remainder not compared", "short-fits", "if lag_after < full or lag_after == full then"),
    (
        "a bucket of one less",
        "short-fits",
        "if lag_after < full or (lag_after == full and rest_after < full_rest) then",
    ),
    ("a full bucket forgotten late", "short-full-now", "if full_at > now then"),
    ("another rate taken for the same", "short-rate", ""),
    ("another reach taken for the same", "short-reach", ""),
    ("a state that no clock pulls back", "short-pulled-back", ""),
    ("a bucket that outlives its expiry", "short-bucket-expiry", "renewed = not raw"),
    ("runs ahead of the clock", "short-run-ahead", "and newest >= 0"),
    ("a window kept too long", "short-window-end", "if newest + period < now then"),
    ("a run kept too long", "short-run-end", "if time + period >= now then"),
    ("a window of one less", "short-room", "if usual and total + hits < capacity then"),
    ("one run too many", "short-slots", "local full = #older / RUN_SIZE > slots"),
    ("runs in one cell kept apart", "short-same-cell", "if total > 0 and not full then"),
    ("runs that outlive their expiry", "short-runs-expiry", "renewed = false"),
    ("a wait one run too long", "short-fits-after-run", "if left + hits < capacity then"),
    ("a window ahead not pulled back", "short-window-ahead", "and written_start >= 0"),
    ("the last window counted", "short-this-window", "if written_start >= start - period then"),
    ("a window that outlives its expiry", "short-window-expiry", "renewed = false"),
    (
        "a count of one less",
        "short-count",
        "if usual and hits > 0 and count + hits < capacity then",
    ),
    (
        "a shorter state written over a longer one",
        "short-overwrites",
        "if state and raw and not renewed then",
    ),
    (
        "an expiry rounded down",
        "short-expiry-rounds-up",
        "local expiry_us = last_us - last_us % EXPIRY_STEP_US",
    ),
    ("an expiry too early", "short-ttl", "local ttl_ms = (expiry_us - now) / 1000 + keep_ms"),
];

fn mutants() -> impl Iterator<Item = &'static Mutant> {
    let lists = [
        MUTANTS,
        BOOK_MUTANTS,
        LEASE_MUTANTS,
        GROUP_MUTANTS,
        REACH_MUTANTS,
        EXPIRY_MUTANTS,
        SHORT_MUTANTS,
    ];
    lists.into_iter().flatten()
}

/// The code and the mark of a line; no mark in most.
fn parse(line: &str) -> (&str, Option<&str>) {
    line.split_once(" --@").map_or((line, None), |(code, mark)| (code, Some(mark)))
}

/// The script with another line at `mark`.
pub fn mutated(text: &str, &(fault, mark, instead): &Mutant) -> String {
    let lines = text.lines().map(|line| match parse(line) {
        (code, Some(found)) if found == mark => {
            assert_ne!(code.trim(), instead, "{fault}: the line as it is");
            instead
        }
        (code, _) => code,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn every_mark_is_unique_and_named_by_a_mutant() {
    // Those of holds have mutants of their own.
    let parts = Script::DECIDE.files.iter().filter(|(name, _)| !super::holds::PARTS.contains(name));
    assert_marks(&parts.map(|(_, text)| *text).collect::<String>(), mutants());
}

/// Every mark of `text` is of one line, and has a mutant.
pub fn assert_marks<'a>(text: &str, mutants: impl Iterator<Item = &'a Mutant>) {
    let mut marks = BTreeSet::new();
    for mark in text.lines().filter_map(|line| parse(line).1) {
        assert!(marks.insert(mark), "{mark} marks several lines");
    }
    let named: BTreeSet<&str> = mutants.map(|(_, mark, _)| *mark).collect();
    let difference: Vec<_> = marks.symmetric_difference(&named).collect();
    assert!(difference.is_empty(), "without a mutant, or without a line: {difference:?}");
    assert_eq!(text.matches("--@").count(), marks.len(), "a mark is the end of its line");
}

#[test]
fn every_mutant_is_convicted() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let mut survivors = Vec::new();
    for mutant @ (fault, mark, _) in mutants() {
        let script = Script::with_manual_time(&mutated(Script::DECIDE.text, mutant));
        match convicted_at(&mut connection, &script) {
            Some(seed) => println!("{fault} ({mark}): seed {seed}"),
            None => survivors.push((fault, mark)),
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
