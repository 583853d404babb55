//! Every remembered denial is held against what the store would have said.

use super::*;

/// How long another replica may remember what a refund has changed.
const LONGEST: Duration = Duration::from_secs(1);

fn one(limit: Limit, hits: Hits) -> Ask {
    ask(&[("k", limit, hits)], None)
}

fn any_limit(kind: u64) -> Limit {
    let algorithm = match kind {
        0 => Algorithm::TokenBucket { burst: 5 },
        1 => Algorithm::SlidingWindow { slots: 3 },
        _ => Algorithm::FixedWindow,
    };
    Limit::new(20, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap()
}

/// What the store would say now.
async fn truth(remote: &Remote, ask: &Ask) -> Vec<Option<Reading>> {
    remote.store.decide(ask.group(), Commit::Never, Instant::now().into()).await.readings.into_vec()
}

#[tokio::test(start_paused = true)]
async fn remembered_denials_are_those_of_the_store() {
    let metrics = Arc::new(Metrics::new(0));
    for kind in 0..3 {
        let remote = Remote::new(kind, Duration::ZERO, false);
        let replicas = [replica(&remote, &metrics), replica(&remote, &metrics)];
        for _ in 0..3_000 {
            tokio::time::advance(Duration::from_micros(remote.below(40_000))).await;
            let layers = &replicas[remote.below(2) as usize];
            let hits = Hits::Take(1 + remote.below(3));
            let keys = ["a", "b"].map(|key| (key, any_limit(kind), hits));
            let claims = if remote.below(3) == 0 { &keys[..] } else { &keys[..1] };
            let mut ask = ask(claims, None);
            let Some(remembered) = layers.recall(&ask, Instant::now()) else {
                decided(layers, &mut ask, Instant::now() + DEADLINE).await;
                continue;
            };
            for (remembered, truth) in remembered.iter().zip(truth(&remote, &ask).await) {
                let (said, truth) = (remembered.reading, truth.unwrap());
                assert!(!said.passed && !truth.passed, "{said:?} instead of {truth:?}");
                assert!(said.retry_after <= truth.retry_after, "{said:?} instead of {truth:?}");
            }
        }
    }
    assert!(
        metrics.store.remembered_denials.get() > 1_000,
        "{}",
        metrics.store.remembered_denials.get()
    );
}

#[tokio::test(start_paused = true)]
async fn only_what_fails_for_certain_is_answered_from_memory() {
    let remote = Remote::new(1, Duration::ZERO, false);
    let metrics = Arc::new(Metrics::new(0));
    let (here, there) = (replica(&remote, &metrics), replica(&remote, &metrics));
    let limit = any_limit(0);
    let decide = async |layers: &Layers<Remote>, hits| {
        let deadline = Instant::now() + DEADLINE;
        decided(layers, &mut one(limit, hits), deadline).await[0].reading
    };
    let remembers =
        |layers: &Layers<Remote>, ask: &Ask| layers.recall(ask, Instant::now()).is_some();
    let two = one(limit, Hits::Take(2));
    assert!(decide(&here, Hits::Take(5)).await.passed);
    assert!(!remembers(&here, &two), "nothing has failed");
    // An answer that was sent when something was charged, and not after, is not remembered.
    tokio::time::advance(Duration::from_micros(1)).await;
    assert!(!decide(&here, Hits::Peek(1)).await.passed);
    assert!(!remembers(&here, &one(limit, Hits::Take(1))), "a peek is not remembered");
    assert!(!decide(&here, Hits::Take(2)).await.passed);
    assert!(remembers(&here, &two));
    assert!(!remembers(&there, &two), "another replica");
    let others = [
        one(limit, Hits::Take(1)),
        one(limit, Hits::Take(3)),
        one(limit, Hits::Refund(2)),
        one(any_limit(1), Hits::Take(2)),
        ask(&[("k", limit, Hits::Take(2)), ("other", limit, Hits::Take(2))], None),
    ];
    for other in others {
        assert!(!remembers(&here, &other), "{other:?}");
    }
    // As long as it fails, and no longer: two hits take 100 ms.
    tokio::time::advance(Duration::from_millis(99)).await;
    assert!(remembers(&here, &two));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!remembers(&here, &two));
}

#[tokio::test(start_paused = true)]
async fn refunds_resets_and_lost_answers_heal() {
    let remote = Remote::new(1, Duration::ZERO, false);
    let metrics = Arc::new(Metrics::new(0));
    let (here, there) = (replica(&remote, &metrics), replica(&remote, &metrics));
    let period = Duration::from_hours(1);
    let limit = Limit::new(1, period, Algorithm::FixedWindow, Charge::Admitted).unwrap();
    let deadline = || Instant::now() + DEADLINE;
    let take = async |layers: &Layers<Remote>| {
        let mut ask = one(limit, Hits::Take(1));
        decided(layers, &mut ask, deadline()).await[0].reading.passed
    };
    let refund = async |layers: &Layers<Remote>| {
        decided(layers, &mut one(limit, Hits::Refund(1)), deadline()).await;
    };
    assert!(take(&here).await && !take(&here).await && !take(&there).await);
    refund(&here).await;
    assert!(take(&here).await, "where the refund was made it is seen at once");
    assert!(!take(&there).await);
    refund(&here).await;
    assert!(!take(&there).await, "elsewhere not yet");
    tokio::time::advance(LONGEST).await;
    assert!(take(&there).await, "but within a second");
    assert!(!take(&here).await);
    assert_eq!(here.forget(&[Key::new(&b"k"[..])], deadline().into()).await, Ok(1));
    assert!(take(&here).await, "after a reset");

    let slow = Remote { slowest: Duration::from_secs(9), ..remote.clone() };
    let cut_off = replica(&slow, &metrics);
    assert!(!take(&cut_off).await, "denied for want of an answer");
    assert!(cut_off.recall(&one(limit, Hits::Take(1)), Instant::now()).is_none());
}

/// A store that decides at once and answers later.
#[derive(Debug)]
struct Late(Remote, Duration);

impl LimitStore for Late {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        let answer = self.0.decide(group, commit, deadline).await;
        sleep(self.1).await;
        answer
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        self.0.forget(keys, deadline).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        self.0.settle(settlement).await
    }
}

/// Denies three hits late, and meanwhile `change`s their counter, by another core of the same
/// process.
async fn overtaken(change: impl AsyncFnOnce(&Layers<Remote>, Limit)) {
    let remote = Remote::new(1, Duration::ZERO, false);
    let metrics = Arc::new(Metrics::new(0));
    let here = replica(&remote, &metrics);
    let late = Layers {
        denials: here.denials.clone(),
        leases: None,
        failover: Failover::new(
            Late(remote.clone(), Duration::from_millis(5)),
            OnStoreFailure::Deny,
            Arc::clone(&metrics),
        ),
    };
    let limit = Limit::new(
        4,
        Duration::from_hours(1),
        Algorithm::TokenBucket { burst: 4 },
        Charge::Admitted,
    );
    let limit = limit.unwrap();
    let deadline = Instant::now() + Duration::from_secs(9);
    decided(&here, &mut one(limit, Hits::Take(2)), deadline).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    let mut three = one(limit, Hits::Take(3));
    let denied = decided(&late, &mut three, deadline);
    let changed = async {
        sleep(Duration::from_millis(1)).await;
        change(&here, limit).await;
    };
    let (denied, ()) = tokio::join!(denied, changed);
    assert!(!denied[0].reading.passed);
    let truth = truth(&remote, &three).await[0].unwrap();
    let said = decided(&here, &mut three, deadline).await[0].reading;
    assert_eq!((said.passed, said.retry_after), (truth.passed, truth.retry_after));
}

#[tokio::test(start_paused = true)]
async fn denial_that_was_overtaken_is_not_remembered() {
    let hits = async |layers: &Layers<Remote>, limit, hits| {
        decided(layers, &mut one(limit, hits), Instant::now()).await;
    };
    overtaken(async |layers, limit| hits(layers, limit, Hits::Refund(1)).await).await;
    overtaken(async |layers, limit| hits(layers, limit, Hits::Take(1)).await).await;
    overtaken(async |layers, _| {
        layers.forget(&[Key::new(&b"k"[..])], Instant::now().into()).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_no_counter_can_change_needs_no_store() {
    let metrics = Arc::new(Metrics::new(0));
    let away = Remote::new(1, Duration::from_secs(9), false);
    let blocked =
        Limit::new(0, Duration::from_secs(1), Algorithm::FixedWindow, Charge::Admitted).unwrap();
    let bare = Layers::bare(Failover::new(away.clone(), OnStoreFailure::Allow, metrics.clone()));
    let certain = [("a", blocked, Hits::Take(1)), ("b", any_limit(0), Hits::Take(6))];
    let never = |ruling: &Ruling| {
        !ruling.degraded() && !ruling.reading.passed && ruling.reading.retry_after.is_none()
    };
    for layers in [&bare, &replica(&away, &metrics)] {
        let now = Instant::now();
        let rulings = decided(layers, &mut ask(&certain, None), now).await;
        assert!(rulings.len() == 2 && rulings.iter().all(never), "{rulings:?}");
        assert_eq!(Instant::now(), now);
        // Beside what does need one, it is as certain.
        let mixed = [certain[0], certain[1], ("c", any_limit(0), Hits::Take(1))];
        let rulings = decided(layers, &mut ask(&mixed, None), now).await;
        assert!(rulings[..2].iter().all(never) && rulings[2].degraded(), "{rulings:?}");
        // Such a cost is charged where costs are charged in any case.
        let algorithm = Algorithm::TokenBucket { burst: 5 };
        let charge = Charge::Always { max_debt: None };
        let always = Limit::new(5, Duration::from_secs(1), algorithm, charge).unwrap();
        let mut ask = one(always, Hits::Take(6));
        assert!(decided(layers, &mut ask, now).await[0].degraded());
    }
}
