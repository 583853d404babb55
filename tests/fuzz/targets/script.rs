//! The scripts of the Redis store on one state, in a running redis-server.

use std::cell::RefCell;
use std::time::Duration;

use redis::{Cmd, Pipeline};
use tollgate::domain::{
    Algorithm, Amendment, Charge, Claim, Commit, Group, Hits, Key, Limit, Part, Timestamp,
};
use tollgate::store::redis::script::{AmendFrame, Encoded, Frame, Script};

use super::redis_server::RedisServer;

/// By how much keys outlive their state: the clock of the input is not the server's.
const KEEP_MS: u64 = 3_600_000;

/// The keys of the three copies of a state.
const KEYS: [&str; 3] = ["short", "long", "amended"];

/// The reply of a call, and the state that it has left.
#[derive(Debug, Eq, PartialEq)]
pub struct Outcome {
    pub integers: Vec<i64>,
    pub state: Option<Vec<u8>>,
}

/// The outcomes of three calls, each on a copy of the state.
#[derive(Debug)]
pub struct Outcomes {
    /// The decision, on the short way of the script where that decides it.
    pub short: Outcome,
    /// The same on the long way.
    pub long: Outcome,
    /// The amendment.
    pub amended: Outcome,
}

/// Decides `claim` and applies `amendment` to copies of the state `raw` at `now`. None if
/// redis-server is not installed.
pub fn play(
    raw: Option<&[u8]>,
    claim: &Claim,
    amendment: &Amendment,
    now: Timestamp,
) -> Option<Outcomes> {
    thread_local!(static SERVER: RefCell<Option<Scripts>> = RefCell::new(Scripts::start()));
    SERVER.with_borrow_mut(|scripts| Some(scripts.as_mut()?.play(raw, claim, amendment, now)))
}

/// A server with both scripts.
struct Scripts {
    server: RedisServer,
    decide: Script,
    amend: Script,
}

impl Scripts {
    fn start() -> Option<Self> {
        let mut server = RedisServer::start()?;
        let decide = Script::with_manual_time(Script::DECIDE.text);
        let amend = Script::with_manual_time(Script::AMEND.text);
        let mut load = redis::pipe();
        load.add_command(decide.load()).add_command(amend.load());
        server.ask::<[String; 2]>(&load).expect("scripts that compile");
        Some(Self { server, decide, amend })
    }

    fn play(
        &mut self,
        raw: Option<&[u8]>,
        claim: &Claim,
        amendment: &Amendment,
        now: Timestamp,
    ) -> Outcomes {
        let keys = KEYS.map(|key| Key::new(key.as_bytes()));
        let [short, long, amended] = keys.clone();
        let claim = |key| group(Claim { key, ..claim.clone() });
        let amendment = Amendment { key: amended, ..amendment.clone() };

        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(&KEYS).ignore();
        for key in &keys {
            put(&mut pipeline, key, raw);
        }
        pipeline.add_command(decide(&self.decide, &[claim(short)], now));
        pipeline.add_command(decide(&self.decide, &[claim(long), elsewhere()], now));
        pipeline.add_command(amend(&self.amend, &amendment, now));
        pipeline.cmd("MGET").arg(&KEYS);
        outcomes(&pipeline, &mut self.server)
    }
}

fn outcomes(pipeline: &Pipeline, server: &mut RedisServer) -> Outcomes {
    type Reply = Vec<i64>;
    let (short, mut long, amended, states): (Reply, Reply, Reply, [Option<Vec<u8>>; 3]) =
        server.ask(pipeline).expect("no state fails a call");
    let elsewhere = Encoded::new(&elsewhere(), Commit::Together).expect("a small group");
    long.truncate(long.len() - elsewhere.integers());
    let [of_short, of_long, of_amended] = states;
    Outcomes {
        short: Outcome { integers: short, state: of_short },
        long: Outcome { integers: long, state: of_long },
        amended: Outcome { integers: amended, state: of_amended },
    }
}

fn put(pipeline: &mut Pipeline, key: &Key, raw: Option<&[u8]>) {
    if let Some(raw) = raw {
        pipeline.cmd("SET").arg(key.as_bytes()).arg(raw).ignore();
    }
}

/// A request with one claim.
pub fn group(claim: Claim) -> Group {
    let parts = vec![Part { quota: false, shadow: false, claims: 0..1 }];
    Group { parts, claims: vec![claim] }
}

/// A claim that changes nothing, on a counter of its own: a frame with it takes the long way.
fn elsewhere() -> Group {
    let second = Duration::from_secs(1);
    let limit = Limit::new(1, second, Algorithm::FixedWindow, Charge::Admitted);
    let (key, limit) = (Key::new(*b"elsewhere"), limit.expect("a limit"));
    group(Claim { key, limit, hits: Hits::Peek(1), lease: None })
}

fn decide(script: &Script, groups: &[Group], now: Timestamp) -> Cmd {
    let mut frame = Frame::default();
    for group in groups {
        let encoded = Encoded::new(group, Commit::Together).expect("a small group");
        frame.push(&encoded).expect("a small frame");
    }
    command(script, frame.keys(), frame.args(), now)
}

fn amend(script: &Script, amendment: &Amendment, now: Timestamp) -> Cmd {
    let mut frame = AmendFrame::default();
    frame.push(amendment);
    command(script, frame.keys(), frame.args(), now)
}

fn command<'a>(
    script: &Script,
    keys: impl ExactSizeIterator<Item = &'a [u8]>,
    args: [&[u8]; 2],
    now: Timestamp,
) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.hash()).arg(keys.len());
    keys.for_each(|key| {
        command.arg(key);
    });
    command.arg(&args).arg(now.as_micros()).arg(KEEP_MS);
    command
}
