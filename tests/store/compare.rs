//! The script against the domain core on random traces: the same readings, and the same states to the byte.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Connection, Pipeline, Value};
use tollgate::domain::{
    Algorithm, Amendment, Charge, Claim, Commit, Counter, Group, Hits, Key, Limit, Part, Reading,
    Sequence, Timestamp,
};
use tollgate::store::redis::script::layout::EXPIRY_STEP_US;
use tollgate::store::redis::script::{Encoded, Frame, Reply, Script, readings};

use super::redis_server::RedisServer;
use super::state::decode;
use super::traces::{Step, Trace};

/// By how much keys outlive their state while a trace plays: its clock is not the server's.
pub const KEEP_MS: u64 = 3_600_000;

/// The way that the script decides a frame.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// The short one where it can.
    Any,
    /// The long one, because the frame has a claim on another counter.
    Long,
}

#[test]
fn both_ways_agree_with_the_core_on_ten_thousand_traces() {
    let Some(server) = RedisServer::start() else { return };
    let script = Script::with_manual_time(Script::DECIDE.text);
    let mut connection = server.connection();
    load(&mut connection, &script);
    for seed in 0..10_000 {
        let trace = Trace::of_single_claims(seed);
        for way in [Way::Any, Way::Long] {
            if let Err(difference) = compare_trace(&mut connection, &script, &trace, way) {
                panic!("seed {seed}, {way:?}: {difference:?}\n{trace:#?}");
            }
        }
    }
}

#[test]
fn script_and_core_agree_on_ten_thousand_traces() {
    let Some(server) = RedisServer::start() else { return };
    let script = Script::with_manual_time(Script::DECIDE.text);
    let mut connection = server.connection();
    load(&mut connection, &script);
    for seed in 0..10_000 {
        if let Err(difference) = compare(&mut connection, &script, seed) {
            panic!("seed {seed}: {difference:?}\n{:#?}", Trace::of_seed(seed));
        }
    }
}

/// How the script and the core differ on a trace.
#[derive(Debug)]
pub enum Difference {
    /// The script did not run.
    Failed(#[expect(dead_code, reason = "shown by Debug")] String),
    /// It decided, or left, something else.
    Wrong(#[expect(dead_code, reason = "shown by Debug")] String),
}

pub fn load(connection: &mut Connection, script: &Script) {
    script.load().query::<Value>(connection).expect("a script that compiles");
}

/// Plays the traces of `seed` and compares every step.
pub fn compare(connection: &mut Connection, script: &Script, seed: u64) -> Result<(), Difference> {
    compare_trace(connection, script, &Trace::of_seed(seed), Way::Any)?;
    compare_trace(connection, script, &Trace::of_single_claims(seed), Way::Any)
}

/// Plays a trace in one pipeline and compares every step.
pub fn compare_trace(
    connection: &mut Connection,
    script: &Script,
    trace: &Trace,
    way: Way,
) -> Result<(), Difference> {
    let mut pipeline = redis::pipe();
    for step in &trace.steps {
        pipeline.add_command(call(script, step, way));
        ask_states(&mut pipeline, &trace.keys);
    }
    pipeline.cmd("DEL").arg(names(&trace.keys)).ignore();
    let sent = Instant::now();
    let replies: Vec<Value> =
        pipeline.query(connection).map_err(|error| Difference::Failed(error.to_string()))?;

    // A millisecond more, as Redis counts in whole ones.
    let slack_ms = sent.elapsed().as_millis() as u64 + 1;
    let mut model = Model { slack_ms, ..Model::default() };
    for (step, replies) in trace.steps.iter().zip(replies.chunks(2 + trace.keys.len())) {
        let limits = limits_of(step);
        model
            .compare_step(trace, step, replies, &limits, way)
            .map_err(|text| Difference::Wrong(format!("at {}: {text}", step.now.as_micros())))?;
    }
    Ok(())
}

/// The states and the expiries of `keys`, as [`Model::compare_states`] takes them.
pub fn ask_states(pipeline: &mut Pipeline, keys: &[Key]) {
    pipeline.cmd("MGET").arg(names(keys));
    for key in keys {
        pipeline.cmd("PTTL").arg(key.as_bytes());
        // So that a later expiry shows that the key got another one.
        pipeline.cmd("PERSIST").arg(key.as_bytes()).ignore();
    }
}

pub fn names(keys: &[Key]) -> Vec<&[u8]> {
    keys.iter().map(Key::as_bytes).collect()
}

pub fn call(script: &Script, step: &Step, way: Way) -> redis::Cmd {
    let groups = step.groups.iter().map(|(group, commit)| (group, *commit));
    let mut command = command(script, &frame(groups, way));
    command.arg(step.now.as_micros()).arg(KEEP_MS);
    command
}

/// The frame of these groups, which the script decides on this way.
pub fn frame<'a>(groups: impl IntoIterator<Item = (&'a Group, Commit)>, way: Way) -> Frame {
    let mut frame = Frame::default();
    for (group, commit) in groups {
        frame.push(&Encoded::new(group, commit).unwrap()).unwrap();
    }
    if let Way::Long = way {
        frame.push(&elsewhere()).unwrap();
    }
    frame
}

/// A claim that changes nothing, on a counter of its own.
fn elsewhere() -> Encoded {
    let period = Duration::from_secs(1);
    let limit = Limit::new(1, period, Algorithm::FixedWindow, Charge::Admitted).unwrap();
    let key = Key::new(&b"elsewhere"[..]);
    let claims = vec![Claim { key, limit, hits: Hits::Peek(1), lease: None }];
    let parts = vec![Part { quota: false, shadow: false, claims: 0..1 }];
    Encoded::new(&Group { parts, claims }, Commit::Together).unwrap()
}

/// Runs the script on `frame`; the time, as further arguments, is to be added.
pub fn command(script: &Script, frame: &Frame) -> redis::Cmd {
    command_of(script, frame.keys(), frame.args())
}

pub fn command_of<'a>(
    script: &Script,
    keys: impl ExactSizeIterator<Item = &'a [u8]>,
    args: [&[u8]; 2],
) -> redis::Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.hash()).arg(keys.len());
    for key in keys {
        command.arg(key);
    }
    command.arg(&args);
    command
}

pub fn limits_of(step: &Step) -> HashMap<&Key, &Limit> {
    let claims = step.groups.iter().flat_map(|(group, _)| &group.claims);
    claims.map(|claim| (&claim.key, &claim.limit)).collect()
}

/// The domain core over counters in memory, and what Redis held after the last step.
#[derive(Default)]
pub struct Model {
    /// How much of an expiry may have passed before it was looked at.
    pub slack_ms: u64,
    pub counters: HashMap<Key, Counter>,
    pub raw: HashMap<Key, Option<Vec<u8>>>,
}

impl Model {
    fn compare_step(
        &mut self,
        trace: &Trace,
        step: &Step,
        replies: &[Value],
        limits: &HashMap<&Key, &Limit>,
        way: Way,
    ) -> Result<(), String> {
        let before = self.counters.clone();
        let integers: Vec<i64> = redis::from_redis_value(replies[0].clone()).unwrap();
        let mut reply = Reply::new(integers).map_err(|error| error.to_string())?;
        if reply.unreadable > 0 {
            return Err("it could not read its own state".into());
        }
        if reply.decided_at != step.now {
            return Err(format!("it says {:?}", reply.decided_at));
        }
        for (group, commit) in &step.groups {
            let expected = self.decide(group, *commit, step.now);
            let integers = reply.next_group(Encoded::new(group, *commit).unwrap().integers());
            let found = readings(group, &integers, step.now).map_err(|error| error.to_string())?;
            if *found != *expected {
                return Err(format!("{found:?} instead of {expected:?}"));
            }
        }
        if let Way::Long = way {
            reply.next_group(elsewhere().integers());
        }
        if !reply.next_group(1).is_empty() {
            return Err("the reply is too long".into());
        }
        self.compare_states(&trace.keys, step.now, &before, &replies[1..], limits, false)
    }

    /// Compares what Redis holds, and when it expires, with the counters; `before` are those before
    /// the step. A counter that is as before may have been written if the step `rewrites` some.
    pub fn compare_states(
        &mut self,
        keys: &[Key],
        now: Timestamp,
        before: &HashMap<Key, Counter>,
        replies: &[Value],
        limits: &HashMap<&Key, &Limit>,
        rewrites: bool,
    ) -> Result<(), String> {
        let stored: Vec<Option<Vec<u8>>> = redis::from_redis_value(replies[0].clone()).unwrap();
        for ((key, raw), expiry) in keys.iter().zip(stored).zip(&replies[1..]) {
            let empty = Counter::Empty;
            let counter = self.counters.get(key).unwrap_or(&empty);
            if decode(raw.as_deref())? != *counter {
                return Err(format!(
                    "{key:?}: {:?} instead of {counter:?}",
                    decode(raw.as_deref())
                ));
            }
            let unchanged = !rewrites && before.get(key).unwrap_or(&empty) == counter;
            if unchanged && self.raw.get(key).is_some_and(|before| *before != raw) {
                return Err(format!("{key:?}: other bytes for the same state"));
            }
            let expiry: i64 = redis::from_redis_value(expiry.clone()).unwrap();
            let before = before.get(key).unwrap_or(&empty);
            let due = match limits.get(key) {
                _ if raw.is_none() => Expiry::Gone,
                Some(limit) if !unchanged => Expiry::of(before, counter, limit),
                _ => Expiry::Untouched,
            };
            due.check(expiry, now, self.slack_ms).map_err(|text| format!("{key:?}: {text}"))?;
            self.raw.insert(key.clone(), raw);
        }
        Ok(())
    }

    pub fn amend(&mut self, amendments: &[Amendment], now: Timestamp) -> Vec<u64> {
        let mut sequence = Sequence::default();
        let mut amend = |Amendment { key, limit, change }: &Amendment| {
            let counter = self.counters.entry(key.clone()).or_default();
            sequence.amend(counter, limit, change, now)
        };
        amendments.iter().map(&mut amend).collect()
    }

    pub fn decide(&mut self, group: &Group, commit: Commit, now: Timestamp) -> Vec<Reading> {
        let mut keys: Vec<&Key> = group.claims.iter().map(|claim| &claim.key).collect();
        keys.sort();
        keys.dedup();
        let slot = |claim: &Claim| keys.binary_search(&&claim.key).unwrap();
        let slots: Vec<usize> = group.claims.iter().map(slot).collect();
        let mut counters: Vec<Counter> =
            keys.iter().map(|key| self.counters.get(*key).cloned().unwrap_or_default()).collect();
        let readings = group.decide(commit, now, &slots, &mut counters);
        for (key, counter) in keys.into_iter().zip(counters) {
            self.counters.insert(key.clone(), counter);
        }
        readings
    }
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
enum Expiry {
    /// It is not there.
    Gone,
    /// It was not written, or keeps the expiry that it has.
    Untouched,
    /// It was written, and expires at this time.
    At(u64),
    /// The same, or it keeps the expiry that it has, which is this.
    Kept(u64),
}

impl Expiry {
    /// Of a counter that changed.
    fn of(before: &Counter, counter: &Counter, limit: &Limit) -> Self {
        let step = |counter: &Counter| (counter.empty_at(limit).as_micros() - 1) / EXPIRY_STEP_US;
        let at = (step(counter) + 1) * EXPIRY_STEP_US;
        if *before != Counter::Empty && step(before) == step(counter) {
            Self::Kept(at)
        } else {
            Self::At(at)
        }
    }

    /// Whether PTTL says so.
    fn check(self, pttl: i64, now: Timestamp, slack_ms: u64) -> Result<(), String> {
        let expires = |at: u64| {
            let longest = at.saturating_sub(now.as_micros()) / 1_000 + 2 + KEEP_MS;
            (longest - slack_ms).cast_signed()..=longest.cast_signed()
        };
        let fits = match self {
            Self::Gone => pttl == -2,
            Self::Untouched => pttl == -1,
            Self::At(at) => expires(at).contains(&pttl),
            Self::Kept(at) => pttl == -1 || expires(at).contains(&pttl),
        };
        if fits { Ok(()) } else { Err(format!("PTTL says {pttl} at {now:?} instead of {self:?}")) }
    }
}
