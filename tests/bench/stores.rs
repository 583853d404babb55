//! How many decisions a store makes per second for 64 concurrent callers.
//!
//! Loopback and one machine: only ratios within one run count.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark; criterion's macros have no docs"
)]

#[path = "../support/redis.rs"]
mod redis_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};
use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit, Part, SystemClock,
};
use tollgate::redis::RedisSettings;
use tollgate::store::redis::RedisStore;
use tollgate::store::{LimitStore, MemoryStore};

use self::redis_server::RedisServer;

const CALLERS: u64 = 64;
/// Distinct counters per caller.
const KEYS: u64 = 150;

criterion_group!(stores, memory, redis);
criterion_main!(stores);

const ALGORITHMS: [(&str, Algorithm); 3] = [
    ("token_bucket", Algorithm::TokenBucket { burst: 1_000_000 }),
    ("sliding_window", Algorithm::SlidingWindow { slots: Algorithm::DEFAULT_SLOTS }),
    ("fixed_window", Algorithm::FixedWindow),
];

fn memory(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("memory_64_callers");
    bench.throughput(Throughput::Elements(1)).sample_size(20);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(MemoryStore::new(1_000_000, SystemClock::start()));
    for (name, algorithm) in ALGORITHMS {
        bench.bench_function(name, |bencher| {
            bencher.iter_custom(|decisions| run(&runtime, &store, algorithm, decisions));
        });
    }
    bench.finish();
}

fn redis(criterion: &mut Criterion) {
    let Some(server) = RedisServer::start() else { return };
    let mut bench = criterion.benchmark_group("redis_64_callers");
    bench.throughput(Throughput::Elements(1)).sample_size(20);
    for frames_in_flight in [1, 2, 4] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let settings =
            RedisSettings { frames_in_flight, ..RedisSettings::new(server.url()).unwrap() };
        let store = Arc::new(runtime.block_on(connected(&settings)));
        for (name, algorithm) in ALGORITHMS {
            bench.bench_function(format!("{name}/{frames_in_flight}_in_flight"), |bencher| {
                bencher.iter_custom(|decisions| run(&runtime, &store, algorithm, decisions));
            });
        }
    }
    bench.finish();
}

async fn connected(settings: &RedisSettings) -> RedisStore {
    let store = RedisStore::connect(settings).unwrap();
    while !store.is_up() {
        yield_now().await;
    }
    store
}

/// The time that `decisions` take, dealt to the callers.
fn run<S: LimitStore>(
    runtime: &Runtime,
    store: &Arc<S>,
    algorithm: Algorithm,
    decisions: u64,
) -> Duration {
    runtime.block_on(async {
        let mut callers = JoinSet::new();
        let start = Instant::now();
        for caller in 0..CALLERS {
            let store = Arc::clone(store);
            let groups: Vec<Group> =
                (0..KEYS).map(|key| request(&format!("{caller}:{key}"), algorithm)).collect();
            let share = decisions / CALLERS + u64::from(caller < decisions % CALLERS);
            callers.spawn(async move {
                for group in groups.iter().cycle().take(share as usize) {
                    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                    let answer = store.decide(group, Commit::Together, deadline.into()).await;
                    assert_eq!(answer.failure, None);
                }
            });
        }
        callers.join_all().await;
        start.elapsed()
    })
}

fn request(key: &str, algorithm: Algorithm) -> Group {
    let limit = Limit::new(1_000_000, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap();
    let key = Key::new(format!("{algorithm:?}:{key}").into_bytes());
    let part = Part { quota: false, shadow: false, claims: 0..1 };
    Group {
        parts: vec![part],
        claims: vec![Claim { key, limit, hits: Hits::Take(1), lease: None }],
    }
}
