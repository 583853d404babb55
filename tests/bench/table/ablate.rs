//! Each lever by itself: tollgate as it is beside tollgate without it.
//!
//! A ratio above 1 is what the lever gains; of p99 one below 1.

use crate::compare::{Comparison, Work};
use crate::load::Load;
use crate::rows::{
    HOT, LEASED, MANY, ONE_AN_HOUR, ONE_KEY, REMEMBERED, TOKEN_BUCKET, WITHOUT_METADATA, tollgate,
};
use crate::sample::Figure;
use crate::servers::Gate;
use crate::table::Target;

const SERVER: &[(Figure, Target)] = &[(Figure::CallsPerServerCpu, Target::None)];
const SERVER_AND_REDIS: &[(Figure, Target)] = &[
    (Figure::CallsPerServerCpu, Target::None),
    (Figure::DecisionsPerRedisCpu, Target::None),
    (Figure::P99, Target::None),
];

/// A call of the script for each request, and as many of them under way as there may be: what a store without group
/// commit does.
const ONE_BY_ONE: &[&str] = &["redis.frame_limits=1", "redis.frames_in_flight=64"];

/// All of them, in the order of the table.
pub fn comparisons() -> Vec<Comparison> {
    let mut all = vec![runtimes()];
    all.extend(calls_of_the_script());
    all.extend(answers_without_redis());
    all.push(metadata());
    all
}

fn pinned(
    name: &str,
    what: &str,
    figures: &[(Figure, Target)],
    ours: Work,
    beside: Work,
) -> Comparison {
    let (name, what, figures) = (name.to_owned(), what.to_owned(), figures.to_vec());
    Comparison { name, what, figures, pinned: true, ours, beside }
}

fn runtimes() -> Comparison {
    let memory = Gate::memory(TOKEN_BUCKET);
    Comparison {
        name: "per-core-runtimes".into(),
        what: "a runtime per core / one over all cores; memory store, nothing pinned".into(),
        figures: vec![
            (Figure::CallsPerServerCpu, Target::None),
            (Figure::CallsPerSecond, Target::None),
            (Figure::P99, Target::None),
        ],
        pinned: false,
        ours: tollgate(memory.clone(), MANY),
        beside: tollgate(memory.set(&["grpc.runtime=shared"]), MANY),
    }
}

fn calls_of_the_script() -> [Comparison; 3] {
    let redis = || Gate::exact(TOKEN_BUCKET);
    [
        pinned(
            "group-commit",
            "requests share calls of the script / each has its own; 10 000 keys",
            SERVER_AND_REDIS,
            tollgate(redis(), Load::USUAL),
            tollgate(redis().set(ONE_BY_ONE), Load::USUAL),
        ),
        pinned(
            "group-commit-and-merging",
            "the same with one hot key, which a call reads and writes once",
            SERVER_AND_REDIS,
            tollgate(redis(), ONE_KEY),
            tollgate(redis().set(ONE_BY_ONE), ONE_KEY),
        ),
        pinned(
            "merging",
            "one hot key / 10 000 keys; shared calls of the script",
            SERVER_AND_REDIS,
            tollgate(redis(), ONE_KEY),
            tollgate(redis(), Load::USUAL),
        ),
    ]
}

fn answers_without_redis() -> [Comparison; 2] {
    let denied = Gate::exact(ONE_AN_HOUR);
    [
        pinned(
            "deny-cache",
            "denials remembered / asked of Redis each time; hot keys",
            SERVER,
            tollgate(denied.clone().set(REMEMBERED), HOT),
            tollgate(denied.set(&["deny_cache.max_keys=0"]), HOT),
        ),
        pinned(
            "leases",
            "tokens taken in advance / each asked of Redis; one hot key",
            SERVER,
            tollgate(Gate::exact(LEASED), ONE_KEY),
            tollgate(Gate::exact(TOKEN_BUCKET), ONE_KEY),
        ),
    ]
}

fn metadata() -> Comparison {
    let memory = Gate::memory(TOKEN_BUCKET);
    pinned(
        "dynamic-metadata",
        "without dynamic metadata / with; memory store",
        SERVER,
        tollgate(memory.clone().set(WITHOUT_METADATA), Load::USUAL),
        tollgate(memory, Load::USUAL),
    )
}
