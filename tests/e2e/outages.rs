//! Envoy's shipped patience with a frozen Redis, and a tollgate that is told to stop: requests are
//! still decided.

use crate::stack::{Stack, metric_of};
use crate::traffic::{Traffic, order};

/// The other tests give Envoy more patience than it is shipped with. With the shipped 50 ms hardly a request goes by
/// tollgate, even while the store is away: one in twenty would, for a busy machine, at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shipped_timeouts_are_enough_while_redis_stands_still() {
    let Some(stack) = Stack::start_as_shipped().await else { return };
    let traffic = Traffic::start(&stack, 11..=14);
    traffic.goes_on_for(50).await;
    stack.redis.pause();
    traffic.goes_on_for(150).await;
    let answers = traffic.end().await;
    let stats = stack.envoy.stats().await;
    // Envoy makes a counter when it first counts.
    let name = "cluster.backends.ratelimit.failure_mode_allowed";
    let passed_by = stats.get(name).copied().unwrap_or(0);
    let decided = stats["cluster.backends.ratelimit.ok"];
    assert_eq!(passed_by + decided, answers.len() as u64);
    assert!(passed_by * 20 <= decided, "{passed_by} passed by, {decided} decided");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tollgate_that_is_told_to_stop_leaves_no_request_without_an_answer() {
    let Some(mut stack) = Stack::start_with(&[], &["store.deadline=1s"]).await else { return };
    let traffic = Traffic::start(&stack, 11..=16);
    let client = stack.client(21);
    for _ in 0..4 {
        assert_eq!(order(&client).await.status, 201);
    }
    traffic.goes_on_for(50).await;
    assert!(metric_of(&stack.tollgates[0], "tollgate_requests_total").await > 0);
    stack.tollgates[0].signal("TERM");
    assert!(stack.tollgates[0].wait().success());
    stack.envoy.until_healthy("ratelimit", 1).await;
    traffic.goes_on_for(100).await;
    let mut placed = 4;
    for _ in 0..12 {
        placed += u64::from(order(&client).await.status == 201);
    }
    let least = 10 - stack.retried().await.min(10);
    assert!((least..=10).contains(&placed), "{placed} orders: the other tollgate counts on");
    traffic.end().await;
    stack.assert_nothing_was_bypassed_without_the_first().await;
}
