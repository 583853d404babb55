//! Decisions over the memory store.

use std::time::Duration;

use futures_util::FutureExt as _;
use smallvec::smallvec;
use tokio::time::Instant;

use super::denied::DeniedLines;
use super::events::{EventSettings, LimitEvents};
use super::holds::{End, Ending, HandleKey, HoldSettings, Holds};
use super::key::{KeyMaker, SensitiveHasher};
use super::layers::failover::Failover;
use super::mode::{KillSwitch, ModeLayer};
use super::request::{Bounds, Descriptor, Entry};
use super::resolve::{Clients, Resolver};
use super::signals::Fared;
use super::snapshot::Policies;
use super::top::TopCallers;
use super::*;
use crate::domain::{Commit, Group, Hits, Key, ManualClock, Settled, Settlement, SystemClock};
use crate::policy::{Defaults, OnStoreFailure, Options, Source, compile};
use crate::store::{Answer, LimitStore, MemoryStore, StoreError};
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
    limiter_of(MemoryStore::new(100, SystemClock::start()))
}

fn limiter_of<S: LimitStore>(store: S) -> Limiter<S> {
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
    let failover = Failover::new(store, OnStoreFailure::Allow, metrics);
    Limiter::new(Arc::new(shared), Layers::bare(failover))
}

fn request() -> Request<'static> {
    let entry = Entry { key: b"k", value: b"v" };
    let descriptor = Descriptor {
        entries: smallvec![entry],
        hits: Hits::Take(1),
        own_hits: false,
        usage: None,
        limit: None,
    };
    Request { domain: b"d", descriptors: smallvec![descriptor] }
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
fn stating<'m>(entries: &[(&'m str, &'m str)], hits: Option<u64>) -> Descriptor<'m> {
    let entry =
        |(key, value): &(&'m str, &'m str)| Entry { key: key.as_bytes(), value: value.as_bytes() };
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
    let descriptors = smallvec![stating(&[("backend", "b")], None)];
    let asked = Request { domain: b"d", descriptors };
    let hold = limiter.decide(&asked, deadline()).await.hold.take().unwrap();
    hold.heard();
    let hold = ("hold", &*hold.handle);
    let end = |code, millis| Request {
        domain: b"d",
        descriptors: smallvec![
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

/// A store that does not settle at once.
struct Slow(MemoryStore<SystemClock>);

impl LimitStore for Slow {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        self.0.decide(group, commit, deadline).await
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        self.0.forget(keys, deadline).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        tokio::task::yield_now().await;
        self.0.settle(settlement).await
    }
}

/// The end of the request of backend b.
fn end(handle: &str) -> End<'_> {
    let descriptors = vec![(stating(&[("backend", "b")], None), None)];
    End { domain: b"d", handle: handle.as_bytes(), descriptors, fared: Fared::default() }
}

/// The counters of a handle are named by the key that signs it, whichever is the newest by then.
#[tokio::test]
async fn hold_that_is_renewed_while_the_key_is_replaced_can_be_settled() {
    let limiter = limiter_of(Slow(MemoryStore::new(100, SystemClock::start())));
    let due = Instant::now() + Duration::from_secs(1);
    let asked =
        Request { domain: b"d", descriptors: smallvec![stating(&[("backend", "b")], None)] };
    let hold = limiter.decide(&asked, Deadline::from(due)).await.hold.take().unwrap();
    hold.heard();
    let before = end(&hold.handle);
    let mut renewing = Box::pin(limiter.renew_hold(&before, due));
    assert!(renewing.as_mut().now_or_never().is_none(), "the store has not answered");
    limiter.shared().holds.set_keys(HandleKey::new(1, b"the next"), Vec::new());
    let renewed = renewing.await.unwrap().handle.unwrap();
    assert_eq!(limiter.end_hold(&end(&renewed), due).await, Ok(Some(Ending::Settled)));
}
