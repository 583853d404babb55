//! The backends behind Envoy: an even share for each, and nobody notices when one dies.

use std::collections::BTreeMap;

use crate::stack::Stack;
use crate::support::caller::Answer;
use crate::support::wait::until;
use crate::traffic::{PRICE, Traffic, burst, statuses};

/// How many requests each instance answered.
fn shares(answers: &[Answer]) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for answer in answers {
        *shares.entry(answer.header("x-instance").unwrap()).or_default() += 1;
    }
    shares
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_spreads_evenly_over_three_backends() {
    let Some(stack) = Stack::start().await else { return };
    let clients: Vec<_> = (11..=15).map(|host| stack.client(host)).collect();
    let answers = burst(300, |number| {
        let client = clients[number % clients.len()].clone();
        async move { client.get(PRICE).await }
    })
    .await;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 300)]));
    let shares = shares(&answers);
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), ["backend-1", "backend-2", "backend-3"]);
    // Each of Envoy's two workers goes round on its own, so either may be ahead by one.
    assert!(shares.values().all(|share| (98..=102).contains(share)), "{shares:?}");
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_that_is_killed_is_missed_by_nobody_and_comes_back() {
    let Some(mut stack) = Stack::start().await else { return };
    let traffic = Traffic::start(&stack, 11..=16);
    traffic.goes_on_for(100).await;
    stack.backends[1].kill();
    stack.envoy.until_healthy("backends", 2).await;
    traffic.goes_on_for(100).await;
    let stats = stack.envoy.stats().await;
    assert!(stats["cluster.backends.upstream_rq_retry_success"] > 0, "it died unnoticed");

    stack.backends[1].restart().await;
    let watcher = stack.client(20);
    until("backend-2 serves again", async || {
        let answer = watcher.get(PRICE).await.unwrap();
        (answer.header("x-instance") == Some("backend-2")).then_some(())
    })
    .await;
    traffic.goes_on_for(50).await;
    let answers = traffic.end().await;
    assert_eq!(shares(&answers).len(), 3);
    stack.assert_nothing_was_bypassed().await;
}
