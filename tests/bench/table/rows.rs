//! The rows of the table that compare two sides, and what each has to reach.

use crate::compare::{Comparison, Work};
use crate::drive::Driver;
use crate::load::Load;
use crate::sample::Figure;
use crate::servers::{Ceiling, Gate, Server};
use crate::store::StoreKind;
use crate::table::Target;

/// Limits that nobody reaches.
pub const TOKEN_BUCKET: &str =
    "{algorithm: token_bucket, unit: second, requests_per_unit: 1000000}";
const SLIDING_WINDOW: &str =
    "{algorithm: sliding_window, unit: second, requests_per_unit: 1000000}";
/// A limit that everybody has reached after one request.
pub const ONE_AN_HOUR: &str = "{algorithm: token_bucket, unit: hour, requests_per_unit: 1}";
/// A bucket that replicas may take tokens from in advance.
pub const LEASED: &str = "{algorithm: token_bucket, unit: second, requests_per_unit: 1000000, \
                          lease: {max_share: 0.1, ttl: 50ms}}";
/// A Redis that is not there.
const AWAY: &[&str] = &["redis.url=redis://127.0.0.1:1", "failover.replicas=1"];
/// Remembered denials, as many as there may be.
pub const REMEMBERED: &[&str] = &["deny_cache.max_keys=10000"];

pub const WITHOUT_METADATA: &[&str] = &["response.dynamic_metadata=false"];

/// Few clients that ask far too often.
pub const HOT: Load = Load { keys: 100, denied: true, ..Load::USUAL };
pub const ONE_KEY: Load = Load { keys: 1, ..Load::USUAL };
/// Callers on every core.
pub const MANY: Load = Load { connections: 8, in_flight: 32, threads: 2, ..Load::USUAL };

const SERVER: &[(Figure, Target)] = &[(Figure::CallsPerServerCpu, Target::None)];
const REDIS_AND_SERVER: &[(Figure, Target)] =
    &[(Figure::DecisionsPerRedisCpu, Target::None), (Figure::CallsPerServerCpu, Target::None)];

pub const fn tollgate(gate: Gate, load: Load) -> Work {
    Work::Serve(Server::Tollgate(gate), load)
}

const fn bare(ceiling: Ceiling) -> Work {
    Work::Serve(Server::Bare(ceiling), Load::USUAL)
}

/// All of them, in the order of the table.
pub fn comparisons() -> Vec<Comparison> {
    let mut all = ceilings();
    all.extend(beside_bare_tonic());
    all.extend(per_redis_cpu());
    all.extend(ways_to_redis());
    all.extend(beside_itself());
    all
}

/// The ceilings beside that on hyper, so that calls per CPU second of all three are in the table.
fn ceilings() -> Vec<Comparison> {
    let beside_bare_hyper = |name, what, ceiling| Comparison {
        name,
        what,
        figures: SERVER,
        pinned: true,
        ours: bare(ceiling),
        beside: bare(Ceiling::Hyper),
    };
    vec![
        beside_bare_hyper("bare-tonic", "bare tonic / bare hyper", Ceiling::Tonic),
        beside_bare_hyper("bare-h2", "bare h2 / bare hyper", Ceiling::H2),
    ]
}

fn beside_bare_tonic() -> Vec<Comparison> {
    let least = |name, what, figures, ours: Gate, load| Comparison {
        name,
        what,
        figures,
        pinned: true,
        ours: tollgate(ours, load),
        beside: Work::Serve(Server::Bare(Ceiling::Tonic), load),
    };
    vec![
        least(
            "memory",
            "memory store / bare tonic",
            &[(Figure::CallsPerServerCpu, Target::AtLeast(0.85))],
            Gate::memory(TOKEN_BUCKET),
            Load::USUAL,
        ),
        least(
            "memory-without-metadata",
            "the same without dynamic metadata",
            &[(Figure::CallsPerServerCpu, Target::None)],
            Gate::memory(TOKEN_BUCKET).set(WITHOUT_METADATA),
            Load::USUAL,
        ),
        least(
            "redis-token-bucket",
            "Redis, exact, token bucket / bare tonic",
            &[(Figure::CallsPerServerCpu, Target::AtLeast(0.70))],
            Gate::exact(TOKEN_BUCKET),
            Load::USUAL,
        ),
        least(
            "redis-sliding-window",
            "Redis, exact, sliding window / bare tonic",
            &[(Figure::CallsPerServerCpu, Target::AtLeast(0.65))],
            Gate::exact(SLIDING_WINDOW),
            Load::USUAL,
        ),
        least(
            "redis-denied",
            "Redis, denied hot keys / bare tonic",
            &[(Figure::CallsPerServerCpu, Target::AtLeast(0.85))],
            Gate::exact(ONE_AN_HOUR).set(REMEMBERED),
            HOT,
        ),
        least(
            "redis-leased",
            "Redis, leased hot key / bare tonic",
            &[(Figure::CallsPerServerCpu, Target::AtLeast(0.80))],
            Gate::exact(LEASED),
            ONE_KEY,
        ),
        least(
            "redis-away",
            "Redis away, breaker open, decided by shares / bare tonic",
            &[(Figure::CallsPerServerCpu, Target::None)],
            Gate::memory(TOKEN_BUCKET).set(AWAY),
            Load::USUAL,
        ),
    ]
}

fn per_redis_cpu() -> Vec<Comparison> {
    let beside_incrby = |name, what, figures, driver| Comparison {
        name,
        what,
        figures,
        pinned: true,
        ours: Work::Drive(driver),
        beside: Work::Drive(Driver::Incrby),
    };
    vec![
        beside_incrby(
            "redis-cpu-token-bucket",
            "Redis saturated, token bucket / plain INCRBY pipelined",
            &[(Figure::DecisionsPerRedisCpu, Target::AtLeast(0.20))],
            Driver::TokenBucket,
        ),
        beside_incrby(
            "redis-cpu-sliding-window",
            "Redis saturated, sliding window of 10 slots / plain INCRBY pipelined",
            &[(Figure::DecisionsPerRedisCpu, Target::AtLeast(0.12))],
            Driver::SlidingWindow,
        ),
    ]
}

/// Redis reached in another way / standalone and in clear.
fn ways_to_redis() -> Vec<Comparison> {
    let beside_standalone = |name, what, figures, store, load| Comparison {
        name,
        what,
        figures,
        pinned: true,
        ours: tollgate(Gate::exact(TOKEN_BUCKET).on(store), load),
        beside: tollgate(Gate::exact(TOKEN_BUCKET), load),
    };
    vec![
        beside_standalone(
            "redis-cluster",
            "Redis Cluster of three primaries, 10 000 keys over all slots / standalone",
            REDIS_AND_SERVER,
            StoreKind::Cluster,
            Load::USUAL,
        ),
        beside_standalone(
            "redis-cluster-hot-slot",
            "Redis Cluster of three primaries, one hot key / standalone",
            &[(Figure::DecisionsPerRedisCpu, Target::None)],
            StoreKind::Cluster,
            ONE_KEY,
        ),
        beside_standalone(
            "redis-tls",
            "Redis over TLS / in clear",
            REDIS_AND_SERVER,
            StoreKind::Tls,
            Load::USUAL,
        ),
    ]
}

fn beside_itself() -> Vec<Comparison> {
    let three = Load { descriptors: 3, ..Load::USUAL };
    let paced = Load { rate: Some(10_000), ..Load::USUAL };
    let shared = Gate::memory(TOKEN_BUCKET).set(&["grpc.runtime=shared"]);
    vec![
        Comparison {
            name: "three-descriptors",
            what: "memory store, three descriptors per request / one",
            figures: &[(Figure::DecisionsPerServerCpu, Target::AtLeast(1.5))],
            pinned: true,
            ours: tollgate(Gate::memory(TOKEN_BUCKET), three),
            beside: tollgate(Gate::memory(TOKEN_BUCKET), Load::USUAL),
        },
        Comparison {
            name: "three-descriptors-redis",
            what: "Redis, three descriptors per request / one",
            figures: &[(Figure::DecisionsPerServerCpu, Target::AtLeast(1.5))],
            pinned: true,
            ours: tollgate(Gate::exact(TOKEN_BUCKET), three),
            beside: tollgate(Gate::exact(TOKEN_BUCKET), Load::USUAL),
        },
        Comparison {
            name: "listener-tls",
            what: "memory store, TLS on the listener / in clear",
            figures: &[(Figure::CallsPerServerCpu, Target::AtLeast(0.8))],
            pinned: true,
            ours: tollgate(Gate::memory(TOKEN_BUCKET).over_tls(), Load::USUAL),
            beside: tollgate(Gate::memory(TOKEN_BUCKET), Load::USUAL),
        },
        Comparison {
            name: "two-cores",
            what: "nothing pinned, memory store, a runtime per core / one multi-thread runtime",
            figures: &[
                (Figure::CallsPerServerCpu, Target::AtLeast(1.4)),
                (Figure::CallsPerSecond, Target::None),
            ],
            pinned: false,
            ours: tollgate(Gate::memory(TOKEN_BUCKET), MANY),
            beside: tollgate(shared, MANY),
        },
        Comparison {
            name: "open-loop",
            what: "nothing pinned, 10 000 calls/s, Redis / memory store",
            figures: &[(Figure::P99, Target::AtMost(2.0))],
            pinned: false,
            ours: tollgate(Gate::redis(TOKEN_BUCKET), paced),
            beside: tollgate(Gate::memory(TOKEN_BUCKET), paced),
        },
    ]
}
