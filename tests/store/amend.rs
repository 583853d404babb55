//! The amending script against the domain core: both scripts in turn on the same keys, and the
//! faults that the comparison must see.

use std::collections::HashMap;
use std::time::Instant;

use redis::{Connection, Value};
use tollgate::domain::{Algorithm, Amendment, Change, Commit, Group, Key, Limit, Timestamp, Told};
use tollgate::store::redis::script::{AmendFrame, Reply, Script};

use super::compare::{
    Difference, KEEP_MS, Model, Way, ask_states, call, command_of, limits_of, load, names,
};
use super::memory::Memory;
use super::mutants::{Mutant, assert_marks, mutated};
use super::random::Random;
use super::redis_server::RedisServer;
use super::traces::{Era, Step, Subject, group, hits, moved, subject};

const TRACES: u64 = 10_000;
/// The part of the script that the decisions do not have.
const PART: &str = "61_amend.lua";

/// One call of one of the scripts.
#[derive(Debug)]
enum Call {
    Decide(Step),
    Amend(Timestamp, Vec<Amendment>),
}

impl Call {
    const fn now(&self) -> Timestamp {
        match self {
            Self::Decide(Step { now, .. }) | Self::Amend(now, _) => *now,
        }
    }
}

/// Decisions and amendments of one or two counters.
#[derive(Debug)]
struct Trace {
    keys: Vec<Key>,
    calls: Vec<Call>,
}

impl Trace {
    fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let era = Era::random(&mut random);
        let count = 1 + random.up_to(1);
        let subjects: Vec<_> =
            (0..count).map(|i| subject(&mut random, era, format!("amend:{seed}:{i}"))).collect();
        let mut now = era.start(&mut random);
        let mut times = vec![now];
        let calls = (0..20).map(|_| {
            now = moved(&mut random, now, &subjects, era);
            times.push(now);
            let at = Timestamp::from_micros(now);
            if random.chance(50) {
                let groups: Vec<(Group, Commit)> =
                    (0..=random.up_to(1)).map(|_| group(&mut random, now, &subjects)).collect();
                return Call::Decide(Step { now: at, groups });
            }
            let amend = |_| {
                let subject = &subjects[random.up_to(subjects.len() as u64 - 1) as usize];
                amendment(&mut random, subject, now, &times)
            };
            Call::Amend(at, (0..4).map(amend).collect())
        });
        let calls = calls.collect();
        Self { keys: subjects.into_iter().map(|subject| subject.key).collect(), calls }
    }
}

fn amendment(random: &mut Random, subject: &Subject, now: u64, times: &[u64]) -> Amendment {
    let limit = subject.turn(random, now);
    let change = match random.up_to(9) {
        0..=2 => give_back(random, &limit, now, times),
        3..=4 => returned(random, &limit, now, times),
        5..=6 => Change::Charge { hits: hits(random, &limit).needed() },
        _ => tell(random, &limit, now),
    };
    Amendment { key: subject.key.clone(), limit, change }
}

/// A receipt of an earlier call, or of none.
fn give_back(random: &mut Random, limit: &Limit, now: u64, times: &[u64]) -> Change {
    let earlier = times[times.len() - 1 - random.up_to(times.len().min(4) as u64 - 1) as usize];
    let any = now.saturating_sub(random.up_to(limit.period_micros() + 1));
    let charged_at = random.pick(&[earlier, earlier, earlier, now, now + 1, any]);
    let hits = hits(random, limit).needed();
    Change::GiveBack { hits, charged_at: Timestamp::from_micros(charged_at) }
}

/// The same of a hold.
fn returned(random: &mut Random, limit: &Limit, now: u64, times: &[u64]) -> Change {
    match give_back(random, limit, now, times) {
        Change::GiveBack { hits, charged_at } => Change::Return { hits, charged_at },
        change => change,
    }
}

fn tell(random: &mut Random, limit: &Limit, now: u64) -> Change {
    let period = limit.period_micros();
    let hits = hits(random, limit).needed();
    let algorithm = match random.up_to(29) {
        // As a telling would be whose limit has another algorithm meanwhile.
        0 => Algorithm::FixedWindow,
        1 => Algorithm::TokenBucket { burst: 1 },
        _ => limit.algorithm(),
    };
    Change::Tell(match algorithm {
        Algorithm::TokenBucket { .. } => {
            let full = limit.full().micros;
            let micros = [random.up_to(full), full, random.up_to(2 * full), 1, u64::MAX];
            Told::Bucket { micros: random.pick(&micros) }
        }
        Algorithm::SlidingWindow { .. } => {
            let age = [0, random.up_to(period), random.up_to(period), period - 1, period];
            Told::Sliding { hits, age: random.pick(&age) }
        }
        Algorithm::FixedWindow | Algorithm::Concurrency => {
            let end = limit.window(Timestamp::from_micros(now)).end.as_micros();
            let ends_at =
                random.pick(&[end, end, end, end.saturating_sub(period), end + period, now]);
            Told::Fixed { hits, ends_at: Timestamp::from_micros(ends_at) }
        }
    })
}

/// Both scripts with the clock of the trace.
struct Scripts {
    decide: Script,
    amend: Script,
}

impl Scripts {
    fn load(connection: &mut Connection, amend: &str) -> Self {
        let decide = Script::with_manual_time(Script::DECIDE.text);
        let amend = Script::with_manual_time(amend);
        load(connection, &decide);
        load(connection, &amend);
        Self { decide, amend }
    }
}

/// Plays the trace of `seed` in one pipeline and compares every call.
fn compare(connection: &mut Connection, scripts: &Scripts, seed: u64) -> Result<u64, Difference> {
    let trace = Trace::of_seed(seed);
    let mut pipeline = redis::pipe();
    for each in &trace.calls {
        pipeline.add_command(match each {
            Call::Decide(step) => call(&scripts.decide, step, Way::Any),
            Call::Amend(now, amendments) => {
                let frame = frame(amendments);
                let mut command = command_of(&scripts.amend, frame.keys(), frame.args());
                command.arg(now.as_micros()).arg(KEEP_MS);
                command
            }
        });
        ask_states(&mut pipeline, &trace.keys);
    }
    pipeline.cmd("DEL").arg(names(&trace.keys)).ignore();
    let sent = Instant::now();
    let replies: Vec<Value> =
        pipeline.query(connection).map_err(|error| Difference::Failed(error.to_string()))?;
    let slack_ms = sent.elapsed().as_millis() as u64 + 1;
    let mut model = Model { slack_ms, ..Model::default() };
    let mut applied = 0;
    for (call, replies) in trace.calls.iter().zip(replies.chunks(2 + trace.keys.len())) {
        applied += compare_call(&mut model, &trace.keys, call, replies)
            .map_err(|text| Difference::Wrong(format!("{call:?}: {text}")))?;
    }
    Ok(applied)
}

fn frame(amendments: &[Amendment]) -> AmendFrame {
    let mut frame = AmendFrame::default();
    for amendment in amendments {
        assert!(frame.push(amendment));
    }
    frame
}

/// The number of amendments of the call that changed something.
fn compare_call(
    model: &mut Model,
    keys: &[Key],
    call: &Call,
    replies: &[Value],
) -> Result<u64, String> {
    let before = model.counters.clone();
    let integers: Vec<i64> = redis::from_redis_value(replies[0].clone()).unwrap();
    let unreadable = Reply::new(integers.clone()).map_err(|error| error.to_string())?.unreadable;
    if unreadable > 0 {
        return Err("it could not read its own state".into());
    }
    match call {
        Call::Decide(step) => {
            for (group, commit) in &step.groups {
                model.decide(group, *commit, step.now);
            }
            model.compare_states(
                keys,
                step.now,
                &before,
                &replies[1..],
                &limits_of(step),
                false,
            )?;
            Ok(0)
        }
        Call::Amend(now, amendments) => {
            let expected = model.amend(amendments, *now);
            let found = frame(amendments).amounts(integers).map_err(|error| error.to_string())?;
            if found != expected {
                return Err(format!("{found:?} instead of {expected:?}"));
            }
            let limits: HashMap<_, _> =
                amendments.iter().map(|amendment| (&amendment.key, &amendment.limit)).collect();
            let applied = expected.iter().filter(|amount| **amount > 0).count() as u64;
            model.compare_states(keys, *now, &before, &replies[1..], &limits, applied > 0)?;
            Ok(applied)
        }
    }
}

#[test]
fn script_and_core_agree_on_ten_thousand_traces() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let scripts = Scripts::load(&mut connection, Script::AMEND.text);
    let mut applied = 0;
    for seed in 0..TRACES {
        match compare(&mut connection, &scripts, seed) {
            Ok(count) => applied += count,
            Err(difference) => panic!("seed {seed}: {difference:?}\n{:#?}", Trace::of_seed(seed)),
        }
    }
    assert!(applied > 50_000, "only {applied} amendments changed something");
}

#[test]
fn memory_store_amends_the_same() {
    let mut played = 0;
    for seed in 0..TRACES {
        let trace = Trace::of_seed(seed);
        // A counter that was dropped when it was empty does not come back with the clock.
        if !trace.calls.is_sorted_by_key(Call::now) {
            continue;
        }
        played += 1;
        let (memory, mut model) = (Memory::small(), Model::default());
        for call in &trace.calls {
            match call {
                Call::Decide(Step { now, groups }) => {
                    for (group, commit) in groups {
                        let expected = model.decide(group, *commit, *now);
                        assert_eq!(memory.decide(group, *commit, *now), expected, "seed {seed}");
                    }
                }
                Call::Amend(now, amendments) => {
                    let expected = model.amend(amendments, *now);
                    assert_eq!(memory.amend(amendments, *now), expected, "seed {seed}: {call:?}");
                }
            }
        }
    }
    assert!(played > 1_000, "only {played} traces have a forward clock");
}

/// Faults of amendments.
const MUTANTS: &[Mutant] = &[
    ("the whole cost given back", "age", ""),
    (
        "given back from a charge ahead",
        "charge-ahead",
        "if unused or not is_plain(states[slot], rate) then",
    ),
    ("given back at another rate", "plain", "return written_rate > 0 and #state == BUCKET_SIZE"),
    ("given back beside leases", "plain", "return written_rate == rate"),
    ("told beyond the ceiling", "told-to-ceiling", "if room == 0 and room_rest == 0 then"),
    ("told as long as others may have charged", "told-to-full", "if limit[ALWAYS] == 2 then"),
    ("the oldest hits given back", "run-of-charge", "if time >= 0 or charged_at then"),
    ("hits of later runs given back", "run-of-charge", "if time > charged_at then"),
    ("told to a later run", "run-of-telling", "if runs[i][1] > at then"),
    ("told to the oldest run", "run-of-telling", "if i > 0 or at then"),
    ("a told run too few", "told-slots", "local full = #runs >= limit[SLIDING_SLOTS]"),
    ("a told run of its own", "told-cell", "if last and full and width then"),
    ("told without an age", "told-age", "at = now"),
    ("told before 1970", "told-age", "at = now - at"),
    ("told beyond the capacity", "told-to-capacity", ""),
    ("given back however late", "charge-in-window", "if at < 0 then"),
    ("amended runs that outlive their expiry", "amended-runs-expiry", ""),
    ("given back to a window ahead", "amended-window-ahead", "if ends_in < 0 then"),
    ("given back to another window", "window-of-charge", "if at > now then"),
    ("given back from a window ahead", "window-of-charge", "if at < start then"),
    ("told to another window", "window-of-telling", "if at < 0 then"),
    ("a bucket told to its ceiling", "told-to-debt", "kind = TAKE"),
    ("runs told to the capacity", "told-runs-to-debt", "local most = capacity"),
    ("a window told to the capacity", "told-count-to-debt", "local most = limit[FIXED_CAPACITY]"),
    ("a return that charges", "returned", "kind = TAKE"),
    (
        "a charge that must fit",
        "charged-to-debt",
        "local lag_after, rest_after = decided(token_bucket, slot, limit_number, TAKE, cost, cost_rest)",
    ),
    ("runs charged without bound", "charged-runs", ""),
    (
        "a count that must fit",
        "charged-count",
        "decided(fixed_window, slot, limit_number, TAKE, hits)",
    ),
    ("told beyond the count", "told-to-count", "hits = min(hits, limit[FIXED_CAPACITY])"),
];

#[test]
fn every_mark_of_amendments_is_named_by_a_mutant() {
    let part = Script::AMEND.files.iter().find(|(name, _)| *name == PART).unwrap();
    assert_marks(part.1, MUTANTS.iter());
}

#[test]
fn every_mutant_of_amendments_is_convicted() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let mut survivors = Vec::new();
    for mutant @ (fault, ..) in MUTANTS {
        let scripts = Scripts::load(&mut connection, &mutated(Script::AMEND.text, mutant));
        let convicted = (0..TRACES).find(|seed| match compare(&mut connection, &scripts, *seed) {
            Ok(_) => false,
            Err(Difference::Wrong(_)) => true,
            Err(difference) => panic!("{fault}: a mutant must run: {difference:?}"),
        });
        match convicted {
            Some(seed) => println!("{fault}: seed {seed}"),
            None => survivors.push(fault),
        }
    }
    assert!(survivors.is_empty(), "not convicted: {survivors:?}");
}
