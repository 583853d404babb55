//! The layers over a store that several replicas share, on a clock that stands still between
//! events: delayed and lost answers, crashed replicas, refunds and new limits.

mod denials;
mod leases;
mod shares;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::*;
use crate::domain::{
    Algorithm, Charge, Claim, Clock, Group, Hits, Limit, Reading, Settled, Settlement, Timestamp,
    Unit, Verdict,
};
use crate::limiter::ask::Traits;
use crate::limiter::report::Report;
use crate::policy::{LeaseTerms, OnStoreFailure};
use crate::store::{Answer, MemoryStore};
use crate::telemetry::metrics::{LimitOf, Metrics};

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
    let mut ask = Ask::default();
    for (i, wanted) in claims.iter().enumerate() {
        let report = Report {
            requests_per_unit: 1,
            unit: Unit::Second,
            unit_multiplier: 1,
            name: None,
            of: LimitOf::Rule(0),
            concurrent: false,
        };
        ask.push(claim(wanted), Traits { on_store_failure: None, lease }, report);
        ask.close_part(i, false, false);
    }
    ask
}

/// The rulings on `ask`, one per claim, same order.
async fn decided<S: LimitStore>(
    layers: &Layers<S>,
    ask: &mut Ask,
    deadline: impl Into<Deadline>,
) -> Vec<Ruling> {
    layers.decide(ask, Commit::Together, deadline.into()).await;
    ask.records().iter().map(|asked| *asked.ruling()).collect()
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
    async fn debit(&self, group: &Group, deadline: Deadline) -> Answer {
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
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
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
        if Instant::now() > deadline.due() {
            return Answer::none(group.claims.len(), StoreError::Timeout);
        }
        answer
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        self.store.forget(keys, deadline).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        self.store.settle(settlement).await
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

/// A store whose answer has `more` readings than there are claims, or fewer.
#[derive(Debug)]
struct Misfit(isize);

impl LimitStore for Misfit {
    async fn decide(&self, group: &Group, _commit: Commit, _deadline: Deadline) -> Answer {
        let passed = Reading {
            passed: true,
            remaining: 7,
            over: 0,
            retry_after: Some(Duration::ZERO),
            reset_after: Duration::ZERO,
            leased_until: None,
            at: Timestamp::EPOCH,
        };
        Answer::full(vec![passed; group.claims.len().saturating_add_signed(self.0)])
    }

    async fn forget(&self, _keys: &[Key], _deadline: Deadline) -> Result<u32, StoreError> {
        Ok(0)
    }

    async fn settle(&self, _settlement: Settlement) -> Result<Settled, StoreError> {
        Ok(Settled::Now)
    }
}

#[tokio::test]
async fn limit_that_leaves_an_outage_to_the_caller_is_no_denial() {
    let blocked =
        Limit::new(0, Duration::from_secs(1), Algorithm::FixedWindow, Charge::Admitted).unwrap();
    let metrics = Arc::new(Metrics::new(0));
    let away = Failover::new(Misfit(1), OnStoreFailure::Error, Arc::clone(&metrics));
    let layers = Layers::bare(away);
    for hits in [Hits::Take(1), Hits::Peek(0), Hits::Refund(1)] {
        let mut open = ask(&[("a", bucket(), hits)], None);
        decided(&layers, &mut open, Instant::now()).await;
        assert!(open.is_unanswered(), "{hits:?}");
    }
    let mut certain = ask(&[("b", blocked, Hits::Take(1))], None);
    decided(&layers, &mut certain, Instant::now()).await;
    assert!(!certain.is_unanswered(), "blocked whatever a store says");
    assert_eq!(metrics.outage.unanswered.get(), 3);
}

#[tokio::test]
async fn answer_for_another_number_of_claims_is_not_believed() {
    let blocked =
        Limit::new(0, Duration::from_secs(1), Algorithm::FixedWindow, Charge::Admitted).unwrap();
    for (more, mode) in
        [(-1, OnStoreFailure::Deny), (1, OnStoreFailure::Deny), (-1, OnStoreFailure::Allow)]
    {
        let metrics = Arc::new(Metrics::new(0));
        let layers = Layers::bare(Failover::new(Misfit(more), mode, Arc::clone(&metrics)));
        let claims = [("a", bucket(), Hits::Take(1)), ("b", blocked, Hits::Take(1))];
        let ruled = decided(&layers, &mut ask(&claims, None), Instant::now()).await;
        assert!(ruled[0].degraded() && ruled[0].reading.remaining == 0, "{ruled:?}");
        assert_eq!(ruled[0].reading.passed, mode == OnStoreFailure::Allow);
        assert!(!ruled[1].degraded() && !ruled[1].reading.passed, "blocked whatever a store says");
        assert_eq!(metrics.store.errors.protocol.get(), 1);
    }
}
