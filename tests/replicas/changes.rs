//! Policies and clients that change while callers ask.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::edge::admin::pb::Unit;

use crate::callers::Failure;
use crate::operators::Operators;
use crate::support::operator::{client, limit};
use crate::watched::{APPLIED, Change, FILED, LEAST, MOST, Watched};

/// The longest pauses between two changes.
const MAX_PAUSE_OF_POLICIES: Duration = Duration::from_millis(400);
const MAX_PAUSE_OF_CLIENTS: Duration = Duration::from_millis(120);
/// The key of limits that come and go, and the number of its values.
const OTHER: &str = "other";
const OTHERS: u32 = 16;

/// A random descriptor whose limit comes and goes.
pub fn other(random: &mut Rng) -> (&'static str, String) {
    (OTHER, format!("o{}", random.u32(..OTHERS)))
}

/// Changes that were made.
pub struct Changed {
    pub times: usize,
    /// The calls that failed and were repeated.
    pub failures: Vec<Failure>,
}

/// The policy of a domain in a turn: the watched rules and random others, in random order.
fn policy(domain: &str, turn: usize, random: &mut Rng) -> String {
    let alternating = if turn.is_multiple_of(2) { MOST } else { LEAST };
    let rule = |watched: &Watched| {
        watched.rule(match watched.change {
            Change::Never | Change::Own => MOST,
            Change::Client => LEAST,
            Change::File | Change::Policy => alternating,
        })
    };
    let all = Watched::all();
    let mut rules: Vec<String> =
        all.iter().filter(|watched| watched.domain() == domain).map(rule).collect();
    for value in 0..OTHERS {
        if random.bool() {
            rules.push(other_rule(value, random));
        }
    }
    random.shuffle(&mut rules);
    format!("domain: {domain}\ndescriptors:\n{}", rules.concat())
}

fn other_rule(value: u32, random: &mut Rng) -> String {
    let algorithm =
        random.choice(["sliding_window", "token_bucket", "fixed_window"]).unwrap_or_default();
    let rate = random.u32(1..=MOST);
    format!(
        "  - {{key: {OTHER}, value: o{value}, rate_limit: \
         {{unit: second, requests_per_unit: {rate}, algorithm: {algorithm}}}}}\n"
    )
}

/// The policy file of all replicas, and the policy that operators apply.
pub struct Policies {
    file: PathBuf,
    random: Rng,
    turn: usize,
}

impl Policies {
    /// Writes the file for the first time.
    pub fn new(dir: &Path, random: Rng) -> Self {
        let mut policies = Self { file: dir.join("policies.yaml"), random, turn: 0 };
        policies.rewrite();
        policies
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Replaces the file by a rename, as editors and deployments do.
    fn rewrite(&mut self) {
        let new = self.file.with_extension("new");
        fs::write(&new, policy(FILED, self.turn, &mut self.random)).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    pub async fn apply(&mut self, operators: &mut Operators) {
        operators.apply(policy(APPLIED, self.turn, &mut self.random)).await;
    }

    /// Changes both until `end`.
    pub async fn change_until(mut self, end: Instant, mut operators: Operators) -> Changed {
        while Instant::now() < end {
            self.turn += 1;
            self.rewrite();
            self.apply(&mut operators).await;
            tokio::time::sleep(MAX_PAUSE_OF_POLICIES.mul_f64(self.random.f64())).await;
        }
        Changed { times: self.turn, failures: operators.failures }
    }
}

/// Changes watched clients, and others beside them, until `end`.
pub async fn change_clients_until(
    end: Instant,
    mut operators: Operators,
    mut random: Rng,
) -> Changed {
    let all = Watched::all().into_iter();
    let all: Vec<Watched> = all.filter(|watched| watched.change == Change::Client).collect();
    let mut times = 0;
    while Instant::now() < end {
        let watched = all[random.usize(..all.len())];
        match random.u32(..14) {
            0..4 => operators.upsert(watched.client(MOST)).await,
            4..8 => operators.upsert(watched.client(LEAST)).await,
            8 => operators.upsert(watched.client(0)).await,
            9 => operators.delete(watched.client(0)).await,
            _ => change_other(&mut operators, &mut random).await,
        }
        times += 1;
        tokio::time::sleep(MAX_PAUSE_OF_CLIENTS.mul_f64(random.f64())).await;
    }
    Changed { times, failures: operators.failures }
}

/// Sets, stops or removes a client that nothing is promised of.
async fn change_other(operators: &mut Operators, random: &mut Rng) {
    let (key, value) = other(random);
    let other = |rate| client(FILED, (key, &value), limit(rate, Unit::Second));
    match random.u32(..4) {
        0 => operators.delete(other(0)).await,
        1 => operators.upsert(other(0)).await,
        _ => operators.upsert(other(random.u32(1..=MOST))).await,
    }
}
