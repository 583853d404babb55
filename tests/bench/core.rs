//! What a decision costs without a protocol or a network: one step of each algorithm, a lookup among many
//! rules, a counter key.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::domain::{Algorithm, Charge, Counter, Hits, Limit, Timestamp};
use tollgate::limiter::key::{KeyMaker, SensitiveHasher, Sharing};
use tollgate::limiter::request::Entry;
use tollgate::policy::{Options, Source, compile};

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
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
    };
    let entries = [entry("remote_address", "10.0.0.7"), entry("path", "/api/v1/orders")];
    c.bench_function("key/two entries", |b| {
        b.iter(|| {
            black_box(maker.key(
                b"edge",
                black_box(&entries),
                &[],
                Sharing::Rule,
                b":sliding_window:60s:10",
            ))
        });
    });
}

criterion_group!(benches, algorithms, matching, keys);
criterion_main!(benches);
