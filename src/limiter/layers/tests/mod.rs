//! The layers over a store that several replicas share, on a clock that stands still between events: delayed and lost
//! answers, crashed replicas, refunds and new limits.

mod denials;
mod leases;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::*;
use crate::domain::{
    Algorithm, Charge, Claim, Clock, Group, Hits, Limit, Part, Reading, Timestamp, Verdict,
};
use crate::limiter::ask::Traits;
use crate::policy::{LeaseTerms, OnStoreFailure};
use crate::store::{Answer, MemoryStore};
use crate::telemetry::metrics::Metrics;

const TERMS: LeaseTerms = LeaseTerms { most: 100, ttl: Duration::from_millis(400) };
const DEADLINE: Duration = Duration::from_millis(10);
const BURST: u32 = 200;
const RATE: u32 = 1_000;

fn bucket() -> Limit {
    bucket_of(RATE)
}

fn bucket_of(rate: u32) -> Limit {
    let algorithm = Algorithm::TokenBucket { burst: BURST };
    Limit::new(rate, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap()
}

fn ask(claims: &[(&str, Limit, Hits)], lease: Option<LeaseTerms>) -> Ask {
    let claim = |&(key, limit, hits): &(&str, Limit, Hits)| Claim {
        key: Key::new(key.as_bytes()),
        limit,
        hits,
        lease: None,
    };
    let part = |i| Part { quota: false, shadow: false, claims: i..i + 1 };
    Ask {
        group: Group {
            parts: (0..claims.len()).map(part).collect(),
            claims: claims.iter().map(claim).collect(),
        },
        traits: vec![Traits { on_store_failure: None, lease }; claims.len()],
    }
}

/// The virtual time.
#[derive(Debug)]
struct Virtual(Instant);

impl Virtual {
    fn micros(&self) -> u64 {
        1_700_000_000_000_000 + self.0.elapsed().as_micros() as u64
    }
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros())
    }
}

/// The store that replicas share, behind a network.
#[derive(Clone, Debug)]
struct Remote {
    store: Arc<MemoryStore<Virtual>>,
    random: Arc<Mutex<fastrand::Rng>>,
    slowest: Duration,
    /// Leases as a plain debit, without the floor: what must be convicted.
    plain: bool,
    /// (time, hits) of what it admitted.
    admitted: Arc<Mutex<Vec<(u64, u64)>>>,
    since: Instant,
}

impl Remote {
    fn new(seed: u64, slowest: Duration, plain: bool) -> Self {
        let since = Instant::now();
        Self {
            store: Arc::new(MemoryStore::new(1_000, Virtual(since))),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            slowest,
            plain,
            admitted: Arc::default(),
            since,
        }
    }

    fn now(&self) -> Timestamp {
        Virtual(self.since).now()
    }

    fn below(&self, most: u64) -> u64 {
        self.random.lock().u64(0..most.max(1))
    }

    async fn travel(&self) {
        let micros = self.below(self.slowest.as_micros() as u64 + 1);
        if micros > 0 {
            sleep(Duration::from_micros(micros)).await;
        }
    }

    /// Debits the hits, then the lease, and knows no floor.
    async fn debit(&self, group: &Group, deadline: Instant) -> Answer {
        let mut bare = group.clone();
        let lease = bare.claims[0].lease.take();
        let mut answer = self.store.decide(&bare, Commit::Together, deadline).await;
        let reading = answer.readings[0].as_mut().unwrap();
        if let Some(lease) = lease.filter(|lease| lease.tokens > 0 && reading.passed) {
            bare.claims[0].hits = Hits::Take(lease.tokens);
            let more = self.store.decide(&bare, Commit::Together, deadline).await;
            let granted = more.readings[0].as_ref().is_some_and(|reading| reading.passed);
            reading.leased_until = granted.then(|| {
                let ttl = lease.ttl.as_micros() as u64;
                self.now().plus_micros(2 * ttl)
            });
        }
        answer
    }
}

impl LimitStore for Remote {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Instant) -> Answer {
        self.travel().await;
        let answer = if self.plain && group.claims.len() == 1 {
            self.debit(group, deadline).await
        } else {
            self.store.decide(group, commit, deadline).await
        };
        let passed = |i: usize| answer.readings[i].is_some_and(|reading: Reading| reading.passed);
        if commit == Commit::Together && group.verdict(passed) == Verdict::Admit {
            let taken = |claim: &Claim| matches!(claim.hits, Hits::Take(_));
            let hits = group.claims.iter().filter(|claim| taken(claim)).map(|c| c.hits.needed());
            self.admitted.lock().push((self.now().as_micros(), hits.max().unwrap_or(0)));
        }
        self.travel().await;
        if Instant::now() > deadline {
            return Answer::none(group.claims.len(), StoreError::Timeout);
        }
        answer
    }

    async fn forget(&self, keys: &[Key], deadline: Instant) -> Result<u32, StoreError> {
        self.store.forget(keys, deadline).await
    }
}

fn replica(remote: &Remote, metrics: &Arc<Metrics>) -> Layers<Remote> {
    let metrics = || Arc::clone(metrics);
    Layers {
        denials: Some(Arc::new(DenyCache::new(64, metrics()))),
        leases: Some(Arc::new(Leases::new(metrics()))),
        failover: Failover::new(remote.clone(), OnStoreFailure::Deny, metrics()),
    }
}
