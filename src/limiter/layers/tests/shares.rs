//! Decisions by shares: on a store that is away, comes back, or answers too late.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::domain::{Amendment, Change, Settled, Settlement, Told};
use crate::limiter::ask::Source;
use crate::limiter::layers::failover::replicas::Replicas;
use crate::limiter::layers::failover::shares::{Memories, Shares};
use crate::store::recovery::{Recovery, Teller as _};
use crate::store::{Late, LateAnswer};

const SECOND: Duration = Duration::from_secs(1);

/// The shared store, which may be away or late.
#[derive(Clone, Debug)]
struct Unsteady {
    remote: Remote,
    away: Arc<AtomicBool>,
    late: Arc<AtomicBool>,
    amended: Arc<Mutex<Vec<Amendment>>>,
}

impl LimitStore for Unsteady {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        if self.away.load(Ordering::Relaxed) {
            let away = StoreError::Unavailable("away".to_owned());
            return Answer::none(group.claims.len(), away);
        }
        let answer = self.remote.decide(group, commit, deadline).await;
        if !self.late.load(Ordering::Relaxed) {
            return answer;
        }
        let charged = group.charged(commit, |i| answer.readings[i].unwrap().passed);
        let (at, amended) = (self.remote.now(), Arc::clone(&self.amended));
        let amend = Box::new(move |back| amended.lock().extend(back));
        let late = Late::new(async move { Some(LateAnswer { charged, at, amend }) });
        Answer { late: vec![late], ..Answer::none(group.claims.len(), StoreError::Timeout) }
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        self.remote.forget(keys, deadline).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        self.remote.settle(settlement).await
    }
}

/// A replica over the shared store.
struct Replica {
    layers: Layers<Unsteady>,
    shares: Arc<Shares>,
    recovery: Arc<Recovery>,
    replicas: Arc<Replicas>,
}

impl Replica {
    async fn ask(&self, claims: &[(&str, Limit, Hits)]) -> Vec<Ruling> {
        let deadline = Instant::now() + DEADLINE;
        decided(&self.layers, &mut ask(claims, None), deadline).await
    }

    /// The number of `count` requests of one hit each that pass.
    async fn admitted(&self, limit: Limit, count: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..count {
            let ruled = self.ask(&[("k", limit, Hits::Take(1))]).await;
            admitted += usize::from(ruled[0].reading.passed);
        }
        admitted
    }
}

/// Replicas that have seen each other, and their store.
fn replicas(count: u128) -> (Unsteady, Vec<Replica>) {
    let store = Unsteady {
        remote: Remote::new(1, Duration::ZERO, false),
        away: Arc::default(),
        late: Arc::default(),
        amended: Arc::default(),
    };
    let all: Vec<u128> = (0..count).collect();
    let replica = |id| {
        let metrics = Arc::new(Metrics::new(0));
        let replicas = Arc::new(Replicas::new(id, None));
        replicas.note(&all);
        let denials = Some(Arc::new(DenyCache::new(64, Arc::clone(&metrics))));
        let recovery = Arc::<Recovery>::default();
        let shares = Arc::new(Shares::new(
            Arc::new(Virtual(store.remote.since)),
            64,
            Arc::clone(&replicas),
            Memories { denials: denials.clone(), leases: None },
            Arc::clone(&recovery),
            Arc::clone(&metrics),
        ));
        let failover = Failover::new(store.clone(), OnStoreFailure::Local, metrics)
            .with_shares(Arc::clone(&shares));
        let layers = Layers { denials, leases: None, failover };
        Replica { layers, shares, recovery, replicas }
    };
    (store.clone(), (0..count).map(replica).collect())
}

fn limits() -> [Limit; 3] {
    let limit = |algorithm| Limit::new(20, SECOND, algorithm, Charge::Admitted).unwrap();
    [
        limit(Algorithm::TokenBucket { burst: 20 }),
        limit(Algorithm::SlidingWindow { slots: 10 }),
        limit(Algorithm::FixedWindow),
    ]
}

#[tokio::test(start_paused = true)]
async fn shares_of_all_replicas_are_the_limit() {
    for limit in limits() {
        for count in [1, 3, 7] {
            let (store, replicas) = replicas(count);
            store.away.store(true, Ordering::Relaxed);
            let mut all = 0;
            for replica in &replicas {
                all += replica.admitted(limit, 50).await;
            }
            assert_eq!(all, 20, "{limit:?} {count}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answer_of_a_share_says_so() {
    let (store, replicas) = replicas(4);
    store.away.store(true, Ordering::Relaxed);
    let ruled = replicas[0].ask(&[("k", limits()[0], Hits::Take(1))]).await;
    assert_eq!(ruled[0].source, Source::Share { replicas: 4 });
    assert_eq!(ruled[0].reading.remaining, 4, "of a share of five");
    assert_eq!(replicas[0].shares.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn share_stays_used_across_losses() {
    for limit in limits() {
        let (store, replicas) = replicas(2);
        let mut all = 0;
        for _ in 0..5 {
            store.away.store(true, Ordering::Relaxed);
            all += replicas[0].admitted(limit, 50).await;
            store.away.store(false, Ordering::Relaxed);
            replicas[0].replicas.end_loss();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(all, 10, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_is_denied_elsewhere_charges_no_share() {
    let (store, replicas) = replicas(1);
    store.away.store(true, Ordering::Relaxed);
    let limit = limits()[2];
    let deny = Traits { on_store_failure: Some(OnStoreFailure::Deny), lease: None };
    for _ in 0..3 {
        let mut asked = ask(&[("k", limit, Hits::Take(5)), ("other", limit, Hits::Take(1))], None);
        for (claim, traits) in asked.traits_mut() {
            if claim.key == Key::new(&b"other"[..]) {
                *traits = deny;
            }
        }
        let ruled = decided(&replicas[0].layers, &mut asked, Instant::now() + DEADLINE).await;
        assert!(ruled[0].reading.passed && !ruled[1].reading.passed);
        assert_eq!(ruled[0].source, Source::Share { replicas: 1 });
    }
    assert_eq!(replicas[0].admitted(limit, 50).await, 20, "nothing was charged");
}

#[tokio::test(start_paused = true)]
async fn share_of_a_hammered_counter_starts_used_up() {
    for limit in limits() {
        let (store, replicas) = replicas(2);
        assert_eq!(replicas[0].admitted(limit, 20).await, 20, "by the store");
        // An admission at the same moment may be newer than a denial.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(replicas[0].admitted(limit, 5).await, 0, "by the store");
        store.away.store(true, Ordering::Relaxed);
        assert_eq!(replicas[0].admitted(limit, 50).await, 0, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_share_are_refused_and_refunds_are_not() {
    let (store, replicas) = replicas(4);
    store.away.store(true, Ordering::Relaxed);
    for limit in limits() {
        let ruled = replicas[0].ask(&[("large", limit, Hits::Take(6))]).await;
        assert!(!ruled[0].reading.passed);
        let ruled = replicas[0].ask(&[("large", limit, Hits::Refund(6))]).await;
        assert!(ruled[0].reading.passed);
        assert_eq!(replicas[0].recovery.untold(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_shares_admit_is_told_once() {
    for limit in limits() {
        let (store, replicas) = replicas(2);
        let replica = &replicas[0];
        store.away.store(true, Ordering::Relaxed);
        assert_eq!(replica.admitted(limit, 4).await, 4);
        assert_eq!(replica.recovery.untold(), 1);
        let amendments = replica.shares.take(64, &|_| true);
        let [Amendment { limit: of, change: Change::Tell(told), .. }] = &amendments[..] else {
            panic!("{amendments:?}");
        };
        assert_eq!(*of, limit, "the limit itself, not its share");
        match told {
            Told::Bucket { micros } => assert_eq!(*micros, 4 * 50_000),
            Told::Sliding { hits, age } => assert_eq!((*hits, *age), (4, 0)),
            Told::Fixed { hits, .. } => assert_eq!(*hits, 4),
        }
        assert_eq!(replica.recovery.untold(), 1, "until the store has answered");
        replica.shares.told(&amendments, Some(&[1]));
        assert_eq!(replica.recovery.untold(), 0);
        assert!(replica.shares.take(64, &|_| true).is_empty());
        // In the next loss only what is new is told.
        assert_eq!(replica.admitted(limit, 1).await, 1);
        match &replica.shares.take(64, &|_| true)[..] {
            [Amendment { change: Change::Tell(Told::Bucket { micros }), .. }] => {
                assert_eq!(*micros, 50_000);
            }
            [
                Amendment {
                    change: Change::Tell(Told::Sliding { hits, .. } | Told::Fixed { hits, .. }),
                    ..
                },
            ] => assert_eq!(*hits, 1),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn late_answer_settles_what_was_decided_without_it() {
    for limit in limits() {
        let (store, replicas) = replicas(2);
        store.late.store(true, Ordering::Relaxed);
        assert_eq!(replicas[0].admitted(limit, 1).await, 1);
        tokio::task::yield_now().await;
        assert_eq!(replicas[0].recovery.untold(), 0, "{limit:?}: charged in both, told in none");
        assert!(store.amended.lock().is_empty());
        // The share is used up before the limit is.
        let admitted = replicas[0].admitted(limit, 19).await;
        assert_eq!(admitted, 9);
        tokio::task::yield_now().await;
        let back = std::mem::take(&mut *store.amended.lock());
        assert_eq!(back.len(), 10, "charged there, denied here");
        for Amendment { change, .. } in back {
            assert!(matches!(change, Change::GiveBack { hits: 1, .. }), "{change:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reset_empties_the_share_too() {
    let (store, replicas) = replicas(2);
    let limit = limits()[1];
    store.away.store(true, Ordering::Relaxed);
    assert_eq!(replicas[0].admitted(limit, 50).await, 10);
    let deadline = Deadline::from(Instant::now() + DEADLINE);
    replicas[0].layers.forget(&[Key::new(&b"k"[..])], deadline).await.unwrap();
    assert_eq!(replicas[0].recovery.untold(), 0);
    assert_eq!(replicas[0].admitted(limit, 50).await, 10);
}
