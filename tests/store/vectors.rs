//! The vectors: traces of single limits whose answers were worked out in exact fractions.

use std::time::Duration;

use serde::Deserialize;
use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Counter, Group, Hits, Key, Limit, Part, Reading, Timestamp,
};
use tollgate::store::redis::script::{Encoded, Reply, Script, readings};

use super::compare::{Way, command, frame, load};
use super::redis_server::RedisServer;

/// The doubles of the script count microseconds exactly to here, which is the year 2255.
const EXACT: u64 = 1 << 53;
/// (trace, step): from this step on the trace lies beyond [`EXACT`], so the script need not be exact there.
const BEYOND: [(usize, usize); 5] = [(47, 14), (81, 21), (259, 7), (280, 2), (303, 21)];

#[derive(Deserialize)]
pub struct Trace {
    algorithm: String,
    limit: Numbers,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Numbers {
    requests_per_unit: u32,
    period_us: u64,
    burst: Option<u32>,
    slots: Option<u32>,
    charge: Option<String>,
}

#[derive(Deserialize)]
pub struct Step {
    pub t_us: u64,
    kind: String,
    hits: u64,
    expect: Expected,
}

#[derive(Deserialize)]
struct Expected {
    admitted: bool,
    remaining: u64,
    retry_after_us: Option<u64>,
    reset_after_us: u64,
}

impl Trace {
    pub fn limit(&self) -> Limit {
        let Numbers { requests_per_unit, period_us, burst, slots, charge } = &self.limit;
        let algorithm = match self.algorithm.as_str() {
            "token_bucket" => Algorithm::TokenBucket { burst: burst.unwrap() },
            "sliding_window" => Algorithm::SlidingWindow { slots: slots.unwrap() },
            "fixed_window" => Algorithm::FixedWindow,
            other => panic!("algorithm {other}"),
        };
        let charge = match charge.as_deref() {
            None => Charge::Admitted,
            Some("always") => Charge::Always { max_debt: None },
            Some(other) => panic!("charge {other}"),
        };
        Limit::new(*requests_per_unit, Duration::from_micros(*period_us), algorithm, charge)
            .unwrap()
    }
}

impl Step {
    pub fn hits(&self) -> Hits {
        match self.kind.as_str() {
            "take" | "always" => Hits::Take(self.hits),
            "peek" => Hits::Peek(1),
            "refund" => Hits::Refund(self.hits),
            other => panic!("kind {other}"),
        }
    }

    /// The reading; the vectors do not say what is `over` the capacity.
    pub fn reading(&self, Reading { over, at, .. }: Reading) -> Reading {
        Reading {
            passed: self.expect.admitted,
            remaining: self.expect.remaining,
            over,
            retry_after: self.expect.retry_after_us.map(Duration::from_micros),
            reset_after: Duration::from_micros(self.expect.reset_after_us),
            leased_until: None,
            at,
        }
    }

    /// Whether the state after it lies beyond what a double counts.
    fn is_beyond(&self, limit: &Limit) -> bool {
        self.t_us + self.expect.reset_after_us.max(limit.period_micros()) >= EXACT
    }
}

pub fn vectors() -> Vec<Trace> {
    serde_json::from_str(include_str!("../conformance/vectors.json")).unwrap()
}

#[test]
fn core_gives_the_exact_answers() {
    for (i, trace) in vectors().iter().enumerate() {
        let (limit, mut counter) = (trace.limit(), Counter::Empty);
        for (j, step) in trace.steps.iter().enumerate() {
            let now = Timestamp::from_micros(step.t_us);
            let found = counter.step(&limit, step.hits(), now);
            assert_eq!(found, step.reading(found), "trace {i} step {j}");
        }
    }
}

#[test]
fn script_gives_the_exact_answers() {
    let Some(server) = RedisServer::start() else { return };
    let script = Script::with_manual_time(Script::DECIDE.text);
    let mut connection = server.connection();
    load(&mut connection, &script);
    for way in [Way::Any, Way::Long] {
        let mut beyond = Vec::new();
        for (i, trace) in vectors().iter().enumerate() {
            let limit = trace.limit();
            let count = trace.steps.iter().take_while(|step| !step.is_beyond(&limit)).count();
            if count < trace.steps.len() {
                beyond.push((i, count));
            }
            replay(&mut connection, &script, i, &limit, &trace.steps[..count], way);
        }
        assert_eq!(beyond, BEYOND);
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
}

/// Plays the steps of a trace in one pipeline.
fn replay(
    connection: &mut redis::Connection,
    script: &Script,
    trace: usize,
    limit: &Limit,
    steps: &[Step],
    way: Way,
) {
    let groups: Vec<Group> = steps.iter().map(|step| group(trace, *limit, step.hits())).collect();
    let mut pipeline = redis::pipe();
    for (group, step) in groups.iter().zip(steps) {
        let mut command = command(script, &frame([(group, Commit::Together)], way));
        command.arg(step.t_us).arg(3_600_000);
        pipeline.add_command(command);
    }
    let replies: Vec<Vec<i64>> = pipeline.query(connection).unwrap();
    for (i, ((group, step), integers)) in groups.iter().zip(steps).zip(replies).enumerate() {
        let mut reply = Reply::new(integers).unwrap();
        let integers = reply.next_group(Encoded::new(group, Commit::Together).unwrap().integers());
        let found = readings(group, &integers, integers.decided_at).unwrap();
        assert_eq!(*found, [step.reading(found[0])], "trace {trace} step {i}, {way:?}");
    }
}

pub fn group(trace: usize, limit: Limit, hits: Hits) -> Group {
    let key = Key::new(format!("vector:{trace}").into_bytes());
    let part = Part { quota: false, shadow: false, claims: 0..1 };
    Group { parts: vec![part], claims: vec![Claim { key, limit, hits, lease: None }] }
}
