//! The rows about Redis and about how tollgate is set up, and what each has to reach.

use crate::compare::{Comparison, Work};
use crate::drive::Driver;
use crate::load::{Load, Pace};
use crate::sample::Figure;
use crate::servers::{Gate, Server};
use crate::store::StoreKind;
use crate::table::Target;

/// Limits that nobody reaches.
pub const TOKEN_BUCKET: &str =
    "{algorithm: token_bucket, unit: second, requests_per_unit: 1000000}";
pub const SLIDING_WINDOW: &str =
    "{algorithm: sliding_window, unit: second, requests_per_unit: 1000000}";
/// A limit that everybody has reached after one request.
pub const ONE_AN_HOUR: &str = "{algorithm: token_bucket, unit: hour, requests_per_unit: 1}";
/// A bucket that replicas may take tokens from in advance.
pub const LEASED: &str = "{algorithm: token_bucket, unit: second, requests_per_unit: 1000000, \
                          lease: {max_share: 0.1, ttl: 50ms}}";
/// Remembered denials, as many as there may be.
pub const REMEMBERED: &[&str] = &["deny_cache.max_keys=10000"];

pub const WITHOUT_METADATA: &[&str] = &["response.dynamic_metadata=false"];

/// Few clients that ask far too often.
pub const HOT: Load = Load { keys: 100, denied: true, ..Load::USUAL };
pub const ONE_KEY: Load = Load { keys: 1, ..Load::USUAL };
/// Callers on every core.
pub const MANY: Load = Load { connections: 8, in_flight: 32, threads: 2, ..Load::USUAL };

const REDIS_AND_SERVER: [(Figure, Target); 2] =
    [(Figure::DecisionsPerRedisCpu, Target::None), (Figure::CallsPerServerCpu, Target::None)];

pub const fn tollgate(gate: Gate, load: Load) -> Work {
    Work::Serve(Server::Tollgate(gate), load)
}

/// All of them, in the order of the table.
pub fn comparisons() -> Vec<Comparison> {
    let mut all = per_redis_cpu();
    all.extend(ways_to_redis());
    all.extend(beside_itself());
    all
}

fn per_redis_cpu() -> Vec<Comparison> {
    let beside_incrby = |name: &str, what: &str, figures, driver| Comparison {
        name: name.into(),
        what: what.into(),
        figures,
        pinned: true,
        ours: Work::Drive(driver),
        beside: Work::Drive(Driver::Incrby),
    };
    vec![
        beside_incrby(
            "redis-cpu-token-bucket",
            "Redis saturated, token bucket / plain INCRBY pipelined",
            vec![(Figure::DecisionsPerRedisCpu, Target::AtLeast(0.20))],
            Driver::TokenBucket,
        ),
        beside_incrby(
            "redis-cpu-sliding-window",
            "Redis saturated, sliding window of 10 slots / plain INCRBY pipelined",
            vec![(Figure::DecisionsPerRedisCpu, Target::AtLeast(0.12))],
            Driver::SlidingWindow,
        ),
    ]
}

/// Redis reached in another way / standalone and in clear.
fn ways_to_redis() -> Vec<Comparison> {
    let beside_standalone = |name: &str, what: &str, figures, store, load| Comparison {
        name: name.into(),
        what: what.into(),
        figures,
        pinned: true,
        ours: tollgate(Gate::exact(TOKEN_BUCKET).on(store), load),
        beside: tollgate(Gate::exact(TOKEN_BUCKET), load),
    };
    vec![
        beside_standalone(
            "redis-cluster",
            "Redis Cluster of three primaries, 10 000 keys over all slots / standalone",
            REDIS_AND_SERVER.to_vec(),
            StoreKind::Cluster,
            Load::USUAL,
        ),
        beside_standalone(
            "redis-cluster-hot-slot",
            "Redis Cluster of three primaries, one hot key / standalone",
            vec![(Figure::DecisionsPerRedisCpu, Target::None)],
            StoreKind::Cluster,
            ONE_KEY,
        ),
        beside_standalone(
            "redis-tls",
            "Redis over TLS / in clear",
            REDIS_AND_SERVER.to_vec(),
            StoreKind::Tls,
            Load::USUAL,
        ),
    ]
}

fn beside_itself() -> Vec<Comparison> {
    let three = Load { descriptors: 3, ..Load::USUAL };
    let paced = Load { pace: Pace::PerSecond(10_000), ..Load::USUAL };
    let shared = Gate::memory(TOKEN_BUCKET).set(&["grpc.runtime=shared"]);
    vec![
        Comparison {
            name: "three-descriptors".into(),
            what: "memory store, three descriptors per request / one".into(),
            figures: vec![(Figure::DecisionsPerServerCpu, Target::AtLeast(1.5))],
            pinned: true,
            ours: tollgate(Gate::memory(TOKEN_BUCKET), three),
            beside: tollgate(Gate::memory(TOKEN_BUCKET), Load::USUAL),
        },
        Comparison {
            name: "three-descriptors-redis".into(),
            what: "Redis, three descriptors per request / one".into(),
            figures: vec![(Figure::DecisionsPerServerCpu, Target::AtLeast(1.5))],
            pinned: true,
            ours: tollgate(Gate::exact(TOKEN_BUCKET), three),
            beside: tollgate(Gate::exact(TOKEN_BUCKET), Load::USUAL),
        },
        Comparison {
            name: "listener-tls".into(),
            what: "memory store, TLS on the listener / in clear".into(),
            figures: vec![(Figure::CallsPerServerCpu, Target::AtLeast(0.8))],
            pinned: true,
            ours: tollgate(Gate::memory(TOKEN_BUCKET).over_tls(), Load::USUAL),
            beside: tollgate(Gate::memory(TOKEN_BUCKET), Load::USUAL),
        },
        Comparison {
            name: "two-cores".into(),
            what: "nothing pinned, memory store, a runtime per core / one multi-thread runtime"
                .into(),
            figures: vec![
                (Figure::CallsPerServerCpu, Target::AtLeast(1.4)),
                (Figure::CallsPerSecond, Target::None),
            ],
            pinned: false,
            ours: tollgate(Gate::memory(TOKEN_BUCKET), MANY),
            beside: tollgate(shared, MANY),
        },
        Comparison {
            name: "open-loop".into(),
            what: "nothing pinned, 10 000 calls/s, Redis / memory store".into(),
            figures: vec![(Figure::P99, Target::AtMost(2.0))],
            pinned: false,
            ours: tollgate(Gate::redis(TOKEN_BUCKET), paced),
            beside: tollgate(Gate::memory(TOKEN_BUCKET), paced),
        },
    ]
}
