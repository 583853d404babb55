//! Holds in Redis and in memory against the domain core: slots of concurrency limits that are
//! taken, released, renewed and run out, beside a window in one group; settlements that come once,
//! again and late; and the faults that the comparison must see.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use redis::{Connection, Value};
use tollgate::domain::{
    Algorithm, Amendment, Change, Charge, Claim, Commit, Counter, Group, Guard, Hits, HoldId, Key,
    Limit, Part, Settled, Settlement, Timestamp,
};
use tollgate::store::redis::script::{
    AmendFrame, Encoded, Frame, Reply, Script, outcome, readings,
};

use super::compare::{Difference, KEEP_MS, Model, command, command_of, load};
use super::memory::Memory;
use super::mutants::{Mutant, assert_marks, mutated};
use super::random::Random;
use super::redis_server::RedisServer;

/// The parts of the scripts that these tests are for.
pub const PARTS: [&str; 2] = ["41_holds.lua", "53_concurrency.lua"];

const SETTLE: &str = "62_settle.lua";
const TRACES: u64 = 3_000;
const START: u64 = 1_795_000_000_000_000;

#[derive(Debug)]
enum Call {
    Decide(Vec<(Group, Commit)>),
    Settle(Vec<Settlement>),
    Renew(Vec<Amendment>),
}

/// Calls on a concurrency limit, and on a window beside it.
#[derive(Debug)]
struct Trace {
    slots: Key,
    window: Key,
    settled: Key,
    calls: Vec<(Timestamp, Call)>,
}

/// Holds that a trace may still release: id and end.
type Taken = Vec<(u64, Timestamp)>;

impl Trace {
    fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let key = |kind: &str| Key::new(format!("{{holds:{seed}}}:{kind}").into_bytes());
        let [slots, window, settled] = ["concurrency", "window", "settled"].map(key);
        let limits: Vec<Limit> = (0..=random.up_to(1)).map(|_| concurrency(&mut random)).collect();
        let (mut now, mut taken, mut ids) = (START, Taken::new(), seed << 20);
        let calls = (0..24).map(|_| {
            now += random.pick(&[0, 0, 1, 1_000, 400_000, 1_000_000, 1_000_000, 3_000_000]);
            let at = Timestamp::from_micros(now);
            let call = match random.up_to(9) {
                0..=5 => Call::Decide(
                    (0..=random.up_to(1))
                        .map(|_| {
                            group(
                                &mut random,
                                at,
                                (&slots, &window),
                                &limits,
                                (&mut ids, &mut taken),
                            )
                        })
                        .collect(),
                ),
                6..=8 => {
                    let settle = |_| {
                        settlement(&mut random, at, (&slots, &window, &settled), &limits[0], &taken)
                    };
                    Call::Settle((0..2).map(settle).collect())
                }
                _ => Call::Renew(vec![renewal(&mut random, at, &slots, &limits[0], &taken)]),
            };
            (at, call)
        });
        let calls = calls.collect();
        Self { slots, window, settled, calls }
    }
}

fn concurrency(random: &mut Random) -> Limit {
    let (most, ttl) = (random.pick(&[1, 2, 3, 5]), random.pick(&[1_000, 1_000_000, 2_500_000]));
    Limit::new(most, Duration::from_micros(ttl), Algorithm::Concurrency, Charge::Admitted).unwrap()
}

fn per_second() -> Limit {
    let charge = Charge::Held { max_debt: None };
    Limit::new(4, Duration::from_secs(1), Algorithm::FixedWindow, charge).unwrap()
}

fn group(
    random: &mut Random,
    now: Timestamp,
    (slots, window): (&Key, &Key),
    limits: &[Limit],
    (ids, taken): (&mut u64, &mut Taken),
) -> (Group, Commit) {
    let mut group = Group::default();
    for _ in 0..random.pick(&[1, 1, 2, 2, 3]) {
        let first = group.claims.len();
        for _ in 0..random.pick(&[1, 1, 2, 2]) {
            let limit = random.pick(limits);
            let (key, limit, hits) = match random.up_to(9) {
                0..=6 => {
                    *ids += 1;
                    taken.push((*ids, now.plus_micros(limit.period_micros())));
                    (slots, limit, Hits::Hold(*ids))
                }
                7 => (slots, limit, random.pick(&[Hits::Peek(1), Hits::Refund(1)])),
                _ => (window, per_second(), Hits::Take(1 + random.up_to(2))),
            };
            group.claims.push(Claim { key: key.clone(), limit, hits, lease: None });
        }
        let claims = first..group.claims.len();
        group.parts.push(Part { quota: random.chance(20), shadow: random.chance(15), claims });
    }
    let commit = random.pick(&[
        Commit::Together,
        Commit::Together,
        Commit::Together,
        Commit::Each,
        Commit::Never,
    ]);
    (group, commit)
}

/// The end of a hold that may have been taken.
fn settlement(
    random: &mut Random,
    now: Timestamp,
    (slots, window, settled): (&Key, &Key, &Key),
    limit: &Limit,
    taken: &Taken,
) -> Settlement {
    let none = (1, now);
    let (id, until) = if taken.is_empty() { none } else { random.pick(taken) };
    let release =
        Amendment { key: slots.clone(), limit: *limit, change: Change::Release { id, until } };
    let back = 1 + random.up_to(2);
    let charged_at = now.minus_micros(random.up_to(1_000_000));
    let change =
        random.pick(&[Change::Return { hits: back, charged_at }, Change::Charge { hits: back }]);
    let other = Amendment { key: window.clone(), limit: per_second(), change };
    let change = Change::ReleaseOldest;
    let oldest = Amendment { key: slots.clone(), limit: *limit, change };
    let change = Change::ReturnOldest { hits: back };
    let its_hits = Amendment { key: window.clone(), limit: per_second(), change };
    let change = Change::ChargeWithoutOldest { hits: back };
    let or_hits = Amendment { key: window.clone(), limit: per_second(), change };
    // Few ids, so that some come again.
    let id = HoldId::from_random((1 + random.up_to(5)) << 7);
    let any = now.plus_micros(random.up_to(2_000_000)).minus_micros(500_000);
    let expires_at = random.pick(&[now, any, any, any]);
    let guard = Guard {
        key: settled.clone(),
        id,
        expires_at,
        kept_until: expires_at.plus_micros(3_000_000),
    };
    let amendments = [
        vec![release.clone(), other.clone()],
        vec![other.clone()],
        vec![release],
        vec![],
        vec![oldest.clone(), its_hits.clone(), or_hits.clone()],
        vec![oldest.clone(), or_hits.clone(), other, oldest.clone(), its_hits.clone()],
        vec![oldest],
        vec![or_hits, its_hits],
    ];
    Settlement { guard, amendments: amendments[random.up_to(7) as usize].clone() }
}

fn renewal(
    random: &mut Random,
    now: Timestamp,
    slots: &Key,
    limit: &Limit,
    taken: &Taken,
) -> Amendment {
    let (id, until) = if taken.is_empty() { (1, now) } else { random.pick(taken) };
    let renewed = now.plus_micros(random.pick(&[0, 500, 1_000_000, 9_000_000]));
    Amendment { key: slots.clone(), limit: *limit, change: Change::Renew { id, until, renewed } }
}

/// The core, and the holds that it has settled.
#[derive(Default)]
struct Core {
    model: Model,
    settled: BTreeSet<u64>,
}

impl Core {
    fn settle(&mut self, settlement: &Settlement, now: Timestamp) -> Settled {
        let Settlement { guard, amendments } = settlement;
        if now >= guard.expires_at {
            return Settled::Late;
        }
        if !self.settled.insert(guard.id.number()) {
            return Settled::Again;
        }
        self.model.amend(amendments, now);
        Settled::Now
    }

    /// The live holds by their ends.
    fn live(&self, slots: &Key, now: Timestamp) -> Vec<(u64, u64)> {
        let Some(Counter::Concurrency(holds)) = self.model.counters.get(slots) else {
            return Vec::new();
        };
        let mut live: Vec<_> =
            holds.live(now).map(|slot| (slot.until.as_micros(), slot.id)).collect();
        live.sort_unstable();
        live
    }
}

struct Scripts {
    decide: Script,
    amend: Script,
}

impl Scripts {
    fn load(connection: &mut Connection, decide: &str, amend: &str) -> Self {
        let scripts = Self {
            decide: Script::with_manual_time(decide),
            amend: Script::with_manual_time(amend),
        };
        load(connection, &scripts.decide);
        load(connection, &scripts.amend);
        scripts
    }

    fn call(&self, now: Timestamp, call: &Call) -> redis::Cmd {
        let mut command = match call {
            Call::Decide(groups) => {
                let mut frame = Frame::default();
                for (group, commit) in groups {
                    frame.push(&Encoded::new(group, *commit).unwrap()).unwrap();
                }
                command(&self.decide, &frame)
            }
            Call::Settle(_) | Call::Renew(_) => {
                let frame = amend_frame(call);
                command_of(&self.amend, frame.keys(), frame.args())
            }
        };
        command.arg(now.as_micros()).arg(KEEP_MS);
        command
    }
}

fn amend_frame(call: &Call) -> AmendFrame {
    let mut frame = AmendFrame::default();
    match call {
        Call::Settle(settlements) => {
            for settlement in settlements {
                frame.settle(settlement);
            }
        }
        Call::Renew(amendments) => {
            for amendment in amendments {
                assert!(frame.push(amendment));
            }
        }
        Call::Decide(_) => {}
    }
    frame
}

/// Plays the trace of `seed` and compares every call.
fn compare(connection: &mut Connection, scripts: &Scripts, seed: u64) -> Result<(), Difference> {
    let trace = Trace::of_seed(seed);
    let mut pipeline = redis::pipe();
    for (now, call) in &trace.calls {
        pipeline.add_command(scripts.call(*now, call));
        pipeline.cmd("ZRANGE").arg(trace.slots.as_bytes()).arg(0).arg(-1).arg("WITHSCORES");
        pipeline.cmd("PTTL").arg(trace.slots.as_bytes());
        pipeline.cmd("PTTL").arg(trace.settled.as_bytes());
        pipeline.cmd("GET").arg(trace.window.as_bytes());
    }
    let keys = [&trace.slots, &trace.window, &trace.settled].map(Key::as_bytes);
    pipeline.cmd("DEL").arg(&keys).ignore();
    let replies: Vec<Value> =
        pipeline.query(connection).map_err(|error| Difference::Failed(error.to_string()))?;
    let mut core = Core::default();
    for ((now, call), replies) in trace.calls.iter().zip(replies.chunks(5)) {
        let found = compare_call(&mut core, *now, call, &replies[0])
            .and_then(|()| compare_states(&core, &trace, *now, &replies[1..]));
        found.map_err(|text| Difference::Wrong(format!("{now:?} {call:?}: {text}")))?;
    }
    Ok(())
}

fn compare_call(core: &mut Core, now: Timestamp, call: &Call, reply: &Value) -> Result<(), String> {
    let integers: Vec<i64> = redis::from_redis_value(reply.clone()).unwrap();
    let differs = |found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        Err(format!("{found:?} instead of {expected:?}"))
    };
    match call {
        Call::Decide(groups) => {
            let mut reply = Reply::new(integers).map_err(|error| error.to_string())?;
            for (group, commit) in groups {
                let expected = core.model.decide(group, *commit, now);
                let integers = reply.next_group(Encoded::new(group, *commit).unwrap().integers());
                let found = readings(group, &integers, now).map_err(|error| error.to_string())?;
                if *found != *expected {
                    return differs(&found, &expected);
                }
            }
        }
        Call::Settle(settlements) => {
            let amounts = amend_frame(call).amounts(integers).map_err(|error| error.to_string())?;
            let mut at = 0;
            for settlement in settlements {
                let expected = core.settle(settlement, now);
                let found = outcome(amounts[at]).map_err(|error| error.to_string())?;
                if found != expected {
                    return differs(&found, &expected);
                }
                at += 1 + settlement.amendments.len();
            }
        }
        Call::Renew(amendments) => {
            let expected = core.model.amend(amendments, now);
            let found = amend_frame(call).amounts(integers).map_err(|error| error.to_string())?;
            if *found != *expected {
                return differs(&found, &expected);
            }
        }
    }
    Ok(())
}

fn compare_states(
    core: &Core,
    trace: &Trace,
    now: Timestamp,
    replies: &[Value],
) -> Result<(), String> {
    let set: Vec<(u64, u64)> = redis::from_redis_value(replies[0].clone()).unwrap();
    let mut found: Vec<_> = set.into_iter().map(|(id, until)| (until, id)).collect();
    found.sort_unstable();
    let ended = found.iter().filter(|(until, _)| *until <= now.as_micros()).count();
    let live = found.split_off(ended);
    let expected = core.live(&trace.slots, now);
    if live != expected {
        return Err(format!("holds {live:?} instead of {expected:?}"));
    }
    let pttl = |value: &Value| redis::from_redis_value::<i64>(value.clone()).unwrap();
    let until_ms =
        |until: u64| (until.saturating_sub(now.as_micros()) / 1_000 + KEEP_MS).cast_signed();
    if let Some((last, _)) = live.last()
        && pttl(&replies[1]) < until_ms(*last) - 1_000
    {
        return Err(format!("the set lives for {} ms, {last} is its last end", pttl(&replies[1])));
    }
    if !core.settled.is_empty() && pttl(&replies[2]) < 0 {
        return Err("the set of settled holds has no expiry".to_owned());
    }
    let raw: Option<Vec<u8>> = redis::from_redis_value(replies[3].clone()).unwrap();
    let window = super::state::decode(raw.as_deref())?;
    let counters: &HashMap<Key, Counter> = &core.model.counters;
    if window != counters.get(&trace.window).cloned().unwrap_or_default() {
        return Err(format!("the window is {window:?}"));
    }
    Ok(())
}

#[test]
fn scripts_and_core_agree_on_traces_of_holds() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let scripts = Scripts::load(&mut connection, Script::DECIDE.text, Script::AMEND.text);
    for seed in 0..TRACES {
        if let Err(difference) = compare(&mut connection, &scripts, seed) {
            panic!("seed {seed}: {difference:?}\n{:#?}", Trace::of_seed(seed));
        }
    }
}

#[test]
fn memory_store_and_core_agree_on_traces_of_holds() {
    for seed in 0..TRACES {
        let (memory, mut core) = (Memory::small(), Core::default());
        for (now, call) in &Trace::of_seed(seed).calls {
            match call {
                Call::Decide(groups) => {
                    for (group, commit) in groups {
                        let expected = core.model.decide(group, *commit, *now);
                        assert_eq!(
                            memory.decide(group, *commit, *now),
                            expected,
                            "seed {seed} at {now:?}"
                        );
                    }
                }
                Call::Settle(settlements) => {
                    for settlement in settlements {
                        let expected = core.settle(settlement, *now);
                        let found = memory.settle(settlement, *now);
                        // It remembers a hold no longer than it lasts.
                        assert!(
                            found == expected || found == Settled::Now,
                            "seed {seed}: {found:?}"
                        );
                        if found != expected {
                            core.model.amend(&settlement.amendments, *now);
                        }
                    }
                }
                Call::Renew(amendments) => {
                    let expected = core.model.amend(amendments, *now);
                    assert_eq!(memory.amend(amendments, *now), expected, "seed {seed}");
                }
            }
        }
    }
}

/// Faults of holds.
const MUTANTS: &[Mutant] = &[
    ("holds of a frame forgotten", "held-in-frame", ""),
    (
        "one hold too many",
        "free-slot",
        "local passed = kind == REFUND or held <= limit[CONCURRENCY_CAPACITY]",
    ),
    ("a set that ends before its holds", "kept-long-enough", "if call('PTTL', key) < 0 then"),
    (
        "a set removed with its holds",
        "ended-holds",
        "if call('ZCARD', key) > 0 then call('ZREMRANGEBYSCORE', key, '-inf', '+inf') end if false then",
    ),
    ("a hold that has ended renewed", "renews-live", "elseif change == RENEW then"),
    ("a hold made shorter", "renews-longer", ""),
    ("a hold that has ended was live", "was-live", "return ends_at > 0 and 1 or 0"),
    ("settled after its end", "settled-in-time", "if now > expires_at then"),
    ("settled again", "settled-once", "elseif call('SADD', key, format('%d', id)) == 2 then"),
    ("settled holds that stay for ever", "expiry-of-settled", "if call('SCARD', key) == 0 then"),
    ("changes of a guarded hold", "guarded", "left_out = 0"),
    (
        "a hold that has ended as the oldest",
        "oldest-live",
        "local first = call('ZRANGEBYSCORE', key, '-inf', '+inf', 'WITHSCORES', 'LIMIT', '0', '1')",
    ),
    ("the oldest hold ended twice", "oldest-once", ""),
    (
        "hits of the oldest hold given back as of its end",
        "oldest-charge",
        "oldest_at = first[2] + 0",
    ),
    ("hits given back for no hold", "returns-oldest", "return RETURN, oldest_at or now, applies"),
    (
        "hits charged beside the oldest hold",
        "charges-without-oldest",
        "return CHARGE, at, applies and oldest_at ~= nil",
    ),
    ("the oldest hold of another settlement", "oldest-of-settlement", ""),
];

#[test]
fn every_mark_of_holds_is_named_by_a_mutant() {
    let named = |(name, _): &&(&str, &str)| PARTS.contains(name) || *name == SETTLE;
    let parts = Script::DECIDE.files.iter().chain(Script::AMEND.files).filter(named);
    let parts: BTreeSet<&str> = parts.map(|(_, text)| *text).collect();
    assert_marks(&parts.into_iter().collect::<String>(), MUTANTS.iter());
}

#[test]
fn every_mutant_of_holds_is_convicted() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let mut survivors = Vec::new();
    for mutant @ (fault, ..) in MUTANTS {
        let decide = mutated(Script::DECIDE.text, mutant);
        let scripts = Scripts::load(&mut connection, &decide, &mutated(Script::AMEND.text, mutant));
        let convicted = (0..TRACES).find(|seed| match compare(&mut connection, &scripts, *seed) {
            Ok(()) => false,
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
