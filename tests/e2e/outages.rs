//! Redis goes away or stands still, a tollgate is told to stop: every request is still answered, in time, by a tollgate.

use std::time::Duration;

use serde_json::Value;

use crate::stack::{Stack, metric_of};
use crate::support::caller::{Answer, Caller};
use crate::support::envoy::ATTEMPT;
use crate::support::wait::until;
use crate::traffic::{ORDER, ORDERS, Traffic, slowest};

/// Tollgate gives Redis 10 ms; the rest is for a machine that does other things too. It is less than Envoy waits for
/// one tollgate, so whoever is answered in this time was answered by the first that Envoy asked.
const IN_TIME: Duration = Duration::from_millis(250);
const _: () = assert!(IN_TIME.as_millis() < ATTEMPT.as_millis());

async fn order(client: &Caller) -> Answer {
    client.post(ORDERS, ORDER).await.unwrap()
}

/// Of a client that has placed nothing yet, Redis lets ten orders pass and refuses the next. A call that missed Redis'
/// 10 ms on a busy machine was decided without it and says so; it may have been charged all the same.
async fn assert_limits_hold(stack: &Stack, host: u8) {
    let client = stack.client(host);
    let retried = stack.retried().await;
    for _ in 0..20 {
        let answer = order(&client).await;
        assert!([201, 429].contains(&answer.status), "{answer:?}");
    }
    let twice = stack.retried().await - retried;
    let lines = stack.envoy.logged_of(&format!("127.0.0.{host}"), 20).await;
    let count =
        |fits: &dyn Fn(&Value) -> bool| lines.iter().filter(|line| fits(line)).count() as u64;
    let degraded = count(&is_degraded);
    let placed = count(&|line| line["code"] == 201 && !is_degraded(line));
    let refused = count(&|line| line["code"] == 429);
    let least = 10_u64.saturating_sub(twice + degraded);
    assert!(
        (least..=10).contains(&placed) && refused > 0,
        "{placed} placed, {refused} refused, {degraded} without Redis, {twice} asked twice"
    );
}

fn is_degraded(line: &Value) -> bool {
    line["tollgate"].to_string().contains("\"degraded\":true")
}

/// While the store is away, each tollgate has a share of the limit of ten, and the log says so.
async fn assert_shares_decide(stack: &Stack, host: u8) {
    let client = stack.client(host);
    let mut placed = 0;
    for _ in 0..15 {
        let answer = order(&client).await;
        assert!([201, 429].contains(&answer.status), "{answer:?}");
        assert!(answer.took() < IN_TIME, "{:?}", answer.took());
        placed += usize::from(answer.status == 201);
    }
    assert!((5..=10).contains(&placed), "{placed} placed");
    let lines = stack.envoy.logged_of(&format!("127.0.0.{host}"), 15).await;
    assert!(lines.iter().any(is_degraded), "{}", lines[14]);
}

/// Both tollgates know of each other, so each has half of a limit.
async fn until_replicas_are_seen(stack: &Stack) {
    until("the tollgates have seen each other", async || {
        (stack.metric("tollgate_replicas_seen").await == 4).then_some(())
    })
    .await;
}

async fn until_store_is(stack: &Stack, up: bool) {
    let wanted = if up { 2 } else { 0 };
    until("the state of the store is known", async || {
        (stack.metric("tollgate_store_up").await == wanted).then_some(())
    })
    .await;
}

async fn end_in_time(traffic: Traffic) {
    let answers = traffic.end().await;
    assert!(slowest(&answers) < IN_TIME, "{:?} of {}", slowest(&answers), answers.len());
}

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
async fn requests_are_answered_while_redis_is_away_and_limited_when_it_is_back() {
    let Some(mut stack) = Stack::start().await else { return };
    let traffic = Traffic::start(&stack, 11..=14);
    assert_limits_hold(&stack, 21).await;
    until_replicas_are_seen(&stack).await;
    for round in 0..2 {
        stack.redis.stop();
        assert_shares_decide(&stack, 31 + round).await;
        traffic.goes_on_for(60).await;
        until_store_is(&stack, false).await;
        stack.redis.restart();
        until_store_is(&stack, true).await;
        assert_limits_hold(&stack, 41 + round).await;
    }
    end_in_time(traffic).await;
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_while_redis_stands_still_and_limited_when_it_goes_on() {
    let Some(stack) = Stack::start().await else { return };
    let traffic = Traffic::start(&stack, 11..=14);
    assert_limits_hold(&stack, 21).await;
    until_replicas_are_seen(&stack).await;
    stack.redis.pause();
    assert_shares_decide(&stack, 31).await;
    // Until the connections are given up and new ones stay without an answer.
    until_store_is(&stack, false).await;
    assert_shares_decide(&stack, 32).await;
    traffic.goes_on_for(60).await;
    stack.redis.resume();
    until_store_is(&stack, true).await;
    assert_limits_hold(&stack, 41).await;
    end_in_time(traffic).await;
    stack.assert_nothing_was_bypassed().await;
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
