//! Every admission of replicas with leases is held against the bucket's promise.

use super::*;
use crate::verify::{Promise, Trace};

/// Four seconds of a replica that idles, trickles, or takes whatever it can; one in 200 times it
/// crashes.
async fn life(remote: Remote, metrics: Arc<Metrics>) {
    let mut layers = replica(&remote, &metrics);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        // All replicas are in the same mood at the same time: they gather leases, hold them for a
        // moment, and spend.
        let mood = remote.since.elapsed().as_millis() / 50 % 16;
        let pause = match mood {
            0..=7 => 12_000,
            12 => 60,
            _ => 60_000,
        };
        sleep(Duration::from_micros(1 + remote.below(pause))).await;
        if remote.below(200) == 0 {
            layers = replica(&remote, &metrics);
        }
        for _ in 0..if mood == 12 { 40 } else { 1 } {
            let hits = 1 + remote.below(20) / 18;
            let mut ask = ask(&[("hot", bucket(), Hits::Take(hits))], Some(TERMS));
            let now = Instant::now();
            if let Some(rulings) = layers.recall(&ask, now) {
                if rulings[0].reading.passed {
                    remote.admitted.lock().push((remote.now().as_micros(), hits));
                }
                continue;
            }
            decided(&layers, &mut ask, now + DEADLINE).await;
        }
    }
}

/// The worst excess of `replicas` over a few lives, and the hits admitted, leased and stranded.
async fn worst(replicas: usize, slowest: Duration, plain: bool) -> (f64, u64, u64, u64) {
    let metrics = Arc::new(Metrics::new(0));
    let (mut worst, mut total) = (f64::MIN, 0);
    for seed in 0..8 {
        let remote = Remote::new(seed, slowest, plain);
        let lives = (0..replicas).map(|_| tokio::spawn(life(remote.clone(), Arc::clone(&metrics))));
        for life in lives.collect::<Vec<_>>() {
            life.await.unwrap();
        }
        let mut trace = Trace::default();
        for (at, hits) in std::mem::take(&mut *remote.admitted.lock()) {
            let at = Timestamp::from_micros(at);
            trace.admit(at, at, hits);
            total += hits;
        }
        let found = Promise::new(bucket()).worst(&trace);
        worst = worst.max(found.map_or(f64::MIN, |found| found.excess()));
    }
    (worst, total, metrics.store.leased_hits.get(), metrics.store.stranded_hits.get())
}

#[tokio::test(start_paused = true)]
async fn leases_keep_the_promise_of_the_bucket() {
    for replicas in [1, 2, 4] {
        for slowest in [0, 300, 7_000].map(Duration::from_micros) {
            let (excess, admitted, leased, stranded) = worst(replicas, slowest, false).await;
            println!(
                "{replicas} x {slowest:?}: {admitted} admitted, {leased} leased, {stranded} stranded"
            );
            assert!(excess <= 0.0, "{excess} hits too many: {replicas} replicas, {slowest:?}");
            assert!(leased * 10 > admitted, "{leased} of {admitted} leased");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn debit_without_a_floor_is_convicted() {
    let (excess, ..) = worst(4, Duration::from_micros(300), true).await;
    assert!(excess > 0.0, "{excess}");
}

#[tokio::test(start_paused = true)]
async fn lease_of_another_limit_is_not_spent() {
    let remote = Remote::new(1, Duration::ZERO, false);
    let metrics = Arc::new(Metrics::new(0));
    let layers = replica(&remote, &metrics);
    let hot = |limit| ask(&[("hot", limit, Hits::Take(1))], Some(TERMS));
    let mut calls = 0;
    while layers.recall(&hot(bucket()), Instant::now()).is_none() {
        calls += 1;
        assert!(calls < 20, "no lease");
        decided(&layers, &mut hot(bucket()), Instant::now() + DEADLINE).await;
    }
    assert!(layers.recall(&hot(bucket_of(5)), Instant::now()).is_none(), "a new limit");
    let unleased = ask(&[("hot", bucket(), Hits::Take(1))], None);
    assert!(layers.recall(&unleased, Instant::now()).is_none(), "a policy without lease");
    let cold =
        ask(&[("hot", bucket(), Hits::Take(1)), ("cold", bucket(), Hits::Take(1))], Some(TERMS));
    let left = |layers: &Layers<Remote>| {
        layers.recall(&hot(bucket()), Instant::now()).map(|r| r[0].reading.remaining)
    };
    let before = left(&layers).unwrap();
    assert!(layers.recall(&cold, Instant::now()).is_none(), "one of two is not held");
    assert_eq!(left(&layers), Some(before - 1), "and nothing of the other is spent");
    tokio::time::advance(TERMS.ttl).await;
    assert_eq!(left(&layers), None, "it has expired");
}
