//! Decisions over the memory store.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::denied::DeniedLines;
use super::events::{EventSettings, LimitEvents};
use super::holds::{HoldSettings, Holds};
use super::key::{KeyMaker, SensitiveHasher};
use super::layers::failover::Failover;
use super::mode::{KillSwitch, ModeLayer};
use super::request::{Bounds, Descriptor, Entry};
use super::resolve::{Clients, Resolver};
use super::snapshot::Policies;
use super::top::TopCallers;
use super::*;
use crate::domain::{Hits, ManualClock, SystemClock};
use crate::policy::{Defaults, OnStoreFailure, Options, Source, compile};
use crate::store::MemoryStore;
use crate::telemetry::metrics::{EventMetrics, Metrics};

const POLICY: &str = "
domain: d
descriptors:
  - key: k
    rate_limits:
      - {name: per-second, unit: second, requests_per_unit: 1000000}
      - {name: per-day, unit: day, requests_per_unit: 3}
  - key: backend
    rate_limit: {algorithm: concurrency, max: 9, ttl: 10m}
    adaptive: {target: {p95: 300ms, errors: 5%}}
";

fn limiter() -> Limiter<MemoryStore<SystemClock>> {
    let metrics = Arc::new(Metrics::new(0));
    let set = compile(&[Source::new("test", POLICY)], &Options::default()).unwrap().set;
    let shared = Shared {
        policies: Policies::new(set, Arc::clone(&metrics)),
        modes: KillSwitch::new(ModeLayer::default()),
        bounds: Bounds::default(),
        resolver: Resolver {
            keys: KeyMaker::new("tollgate:", SensitiveHasher::new(b"")),
            defaults: Defaults::default(),
            clients: Clients::new(Arc::default(), Arc::new(ManualClock::default())),
        },
        metrics: Arc::clone(&metrics),
        events: LimitEvents::new(
            &EventSettings::default(),
            ManualClock::default(),
            EventMetrics::default(),
        ),
        top: TopCallers::new(100, ManualClock::default()),
        denied: DeniedLines::new(10),
        holds: Arc::new(Holds::new(&HoldSettings::default(), Arc::default())),
    };
    let store = MemoryStore::new(100, SystemClock::start());
    let failover = Failover::new(store, OnStoreFailure::Allow, metrics);
    Limiter::new(Arc::new(shared), Layers::bare(failover))
}

fn request() -> Request {
    let entry = Entry { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
    let descriptor = Descriptor {
        entries: vec![entry],
        hits: Hits::Take(1),
        own_hits: false,
        usage: None,
        limit: None,
    };
    Request { domain: Bytes::from_static(b"d"), descriptors: vec![descriptor] }
}

/// A count of references that each core wrote on each decision would be a cache line that goes from
/// core to core.
#[tokio::test]
async fn decisions_count_no_reference_to_what_cores_share() {
    let limiter = limiter();
    let counts = || {
        let snapshot = limiter.shared().policies.current();
        let domain = snapshot.policies.domain(b"d").unwrap();
        let rule = &snapshot.policies.rules()[0];
        let names = rule.limits.iter().map(|limit| Arc::strong_count(limit.name.as_ref().unwrap()));
        let counts: Vec<usize> = names.collect();
        (Arc::strong_count(domain), Arc::strong_count(rule), counts)
    };
    let before = counts();
    let deadline = Deadline::from(Instant::now() + Duration::from_secs(1));
    let mut decisions = Vec::new();
    for _ in 0..10 {
        decisions.push(limiter.decide(&request(), deadline).await);
        assert_eq!(counts(), before);
    }
    let over = decisions.last().unwrap().statuses[0].limited().unwrap();
    assert_eq!(over.limit.name.as_deref(), Some("per-day"));
}

/// A descriptor of these entries that states so many hits itself.
fn stating(entries: &[(&'static str, &str)], hits: Option<u64>) -> Descriptor {
    let entry = |(key, value): &(&'static str, &str)| Entry {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    Descriptor {
        entries: entries.iter().map(entry).collect(),
        hits: Hits::Take(hits.unwrap_or(1)),
        own_hits: hits.is_some(),
        usage: None,
        limit: None,
    }
}

/// Envoy tries the end of a request again when its answer is lost.
#[tokio::test]
async fn report_that_is_delivered_twice_counts_once() {
    let limiter = limiter();
    let deadline = || Deadline::from(Instant::now() + Duration::from_secs(1));
    let domain = Bytes::from_static(b"d");
    let descriptors = vec![stating(&[("backend", "b")], None)];
    let asked = Request { domain: domain.clone(), descriptors };
    let hold = limiter.decide(&asked, deadline()).await.hold.unwrap();
    hold.heard();
    let hold = ("hold", &*hold.handle);
    let end = |code, millis| Request {
        domain: domain.clone(),
        descriptors: vec![
            stating(&[("backend", "b"), hold], None),
            stating(&[("report", "code"), hold], Some(code)),
            stating(&[("report", "ms"), hold], Some(millis)),
        ],
    };
    limiter.decide(&end(503, 301), deadline()).await;
    limiter.decide(&end(503, 301), deadline()).await;
    let taken = limiter.shared().policies.signals.take();
    let [(_, second)] = &taken[..] else { panic!("{taken:?}") };
    let counts = (second.admitted, second.ended, second.errors, second.slow);
    assert_eq!(counts, (1, 1, 1, 1), "{second:?}");
}
