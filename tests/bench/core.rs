//! The cost of a decision without a protocol or a network: one step of each algorithm, a lookup
//! among many rules, a counter key, and whole decisions in memory by one thread and by two.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::domain::{
    Algorithm, Charge, Counter, Hits, Limit, ManualClock, SystemClock, Timestamp,
};
use tollgate::limiter::denied::DeniedLines;
use tollgate::limiter::events::{EventSettings, LimitEvents};
use tollgate::limiter::holds::{HoldSettings, Holds};
use tollgate::limiter::key::{KeyMaker, SensitiveHasher, Sharing, Stem};
use tollgate::limiter::layers::Layers;
use tollgate::limiter::layers::failover::Failover;
use tollgate::limiter::mode::{KillSwitch, ModeLayer};
use tollgate::limiter::request::{Bounds, Descriptor, Entry, Request};
use tollgate::limiter::resolve::{Clients, Resolver};
use tollgate::limiter::snapshot::Policies;
use tollgate::limiter::top::TopCallers;
use tollgate::limiter::{Limiter, Shared};
use tollgate::policy::{
    AlgorithmName, Defaults, How, OnStoreFailure, Options, PathEntry, Source, compile,
};
use tollgate::store::MemoryStore;
use tollgate::telemetry::metrics::{EventMetrics, Metrics};

fn algorithms(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    for (name, algorithm) in [
        ("token_bucket", Algorithm::TokenBucket { burst: 1_000 }),
        ("sliding_window", Algorithm::SlidingWindow { slots: 10 }),
        ("fixed_window", Algorithm::FixedWindow),
    ] {
        let limit = Limit::new(1_000, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap();
        let mut now = 1_700_000_000_000_000;
        let mut counter = Counter::Empty;
        // At the rate of the limit: every hit passes and moves the state.
        group.bench_function(name, |b| {
            b.iter(|| {
                now += 1_000;
                black_box(counter.step(&limit, Hits::Take(1), Timestamp::from_micros(now)))
            });
        });
    }
    group.finish();
}

fn matching(c: &mut Criterion) {
    let mut text = String::from("domain: d\ndescriptors:\n");
    for i in 0..100 {
        let _ = write!(
            text,
            "  - key: service\n    value: s{i}\n    descriptors:\n      - key: path\n        value: /api/*\n        \
             descriptors:\n          - {{key: client, rate_limit: {{unit: minute, requests_per_unit: 5}}}}\n"
        );
    }
    let set = compile(&[Source::new("bench", text)], &Options::default()).unwrap().set;
    let domain = set.domain(b"d").unwrap();
    let entries: [(&[u8], &[u8]); 3] =
        [(b"service", b"s73"), (b"path", b"/api/v1/orders"), (b"client", b"acme")];
    c.bench_function("match/100 rules of 3 levels", |b| {
        b.iter(|| black_box(domain.find(black_box(entries)).is_some()));
    });
}

fn keys(c: &mut Criterion) {
    let maker = KeyMaker::new("tollgate:", SensitiveHasher::new(b""));
    let entry = |key: &'static str, value: &'static str| Entry {
        key: key.as_bytes(),
        value: value.as_bytes(),
    };
    let entries = [entry("remote_address", "10.0.0.7"), entry("path", "/api/v1/orders")];
    let of_path = |entry: &Entry<'_>| PathEntry {
        key: std::str::from_utf8(entry.key).unwrap().into(),
        how: How::Any,
        share: false,
        sensitive: false,
        value_to_metric: false,
    };
    let path: Vec<PathEntry> = entries.iter().map(of_path).collect();
    let (stem, tail) = (Stem::new(b"edge", &path), b":sliding_window:60s:10");
    c.bench_function("key/two entries", |b| {
        b.iter(|| black_box(maker.key(&stem, black_box(&entries), Sharing::Rule, tail)));
    });
}

const DECIDED: &str = "
domain: d
descriptors:
  - {key: client, rate_limit: {name: a-name, unit: second, requests_per_unit: 4000000000}}
";

/// Decides `count` requests of `client` by `limiter`.
fn decide(limiter: &Limiter<Store>, client: &'static str, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let entry = Entry { key: b"client", value: client.as_bytes() };
    let descriptor = Descriptor {
        entries: [entry].into_iter().collect(),
        hits: Hits::Take(1),
        own_hits: false,
        usage: None,
        limit: None,
    };
    let request = Request { domain: b"d", descriptors: [descriptor].into_iter().collect() };
    runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        for _ in 0..count {
            black_box(limiter.decide(black_box(&request), deadline.into()).await);
        }
    });
}

type Store = Arc<MemoryStore<SystemClock>>;

/// Makes limiters that share a store and what limiters share. `top` denied callers are ranked.
fn limiters(policy: &str, top: usize) -> impl Fn() -> Limiter<Store> {
    let metrics = Arc::new(Metrics::new(0));
    let set = compile(&[Source::new("bench", policy)], &Options::default()).unwrap().set;
    let shared = Arc::new(Shared {
        policies: Policies::new(set, Arc::clone(&metrics)),
        modes: KillSwitch::new(ModeLayer::default()),
        bounds: Bounds::default(),
        resolver: Resolver {
            keys: KeyMaker::new("tollgate:", SensitiveHasher::new(b"")),
            defaults: Defaults { algorithm: AlgorithmName::FixedWindow, ..Defaults::default() },
            clients: Clients::new(Arc::default(), Arc::new(ManualClock::default())),
        },
        metrics: Arc::clone(&metrics),
        events: LimitEvents::new(
            &EventSettings::default(),
            SystemClock::start(),
            EventMetrics::default(),
        ),
        top: TopCallers::new(top, SystemClock::start()),
        denied: DeniedLines::new(10),
        holds: Arc::new(Holds::new(&HoldSettings::default(), Arc::default())),
    });
    let store = Arc::new(MemoryStore::new(1_000_000, SystemClock::start()));
    move || {
        let failover =
            Failover::new(Arc::clone(&store), OnStoreFailure::Allow, Arc::clone(&metrics));
        Limiter::new(Arc::clone(&shared), Layers::bare(failover))
    }
}

/// The time per decision of each thread: the same for two as for one, unless they write what they
/// share. The clients differ, so their counters do, too.
fn decisions(c: &mut Criterion) {
    let limiter = limiters(DECIDED, 4_096);
    let mut group = c.benchmark_group("decide");
    for (name, clients) in [("1 thread", &["a"][..]), ("2 threads", &["a", "b"])] {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let limiters: Vec<_> = clients.iter().map(|client| (limiter(), *client)).collect();
                let start = Instant::now();
                thread::scope(|scope| {
                    for (limiter, client) in &limiters {
                        scope.spawn(move || decide(limiter, client, count));
                    }
                });
                start.elapsed()
            });
        });
    }
    group.finish();
}

const DENIED: &str = "
domain: d
descriptors:
  - {key: client, rate_limit: {name: a-name, unit: day, requests_per_unit: 1}}
";

/// The share of the rank of denied callers in a denial.
fn denials(c: &mut Criterion) {
    let mut group = c.benchmark_group("deny");
    for (name, top) in [("not ranked", 0), ("ranked", 1_024)] {
        let limiter = limiters(DENIED, top)();
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let start = Instant::now();
                decide(&limiter, "a", count);
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, algorithms, matching, keys, decisions, denials);
criterion_main!(benches);
