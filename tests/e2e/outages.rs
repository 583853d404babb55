//! Redis goes away or stands still, a tollgate is told to stop: every request is still answered, in time, by a tollgate.

use std::time::Duration;

use crate::stack::{Stack, metric_of};
use crate::support::caller::{Answer, Caller};
use crate::support::wait::until;
use crate::traffic::{ORDER, ORDERS, Traffic, slowest};

/// Redis' deadline is 10 ms and Envoy's 50 ms; the rest is for a machine that does other things too.
const IN_TIME: Duration = Duration::from_millis(250);

async fn order(client: &Caller) -> Answer {
    client.post(ORDERS, ORDER).await.unwrap()
}

/// A client that has placed nothing yet may place ten orders.
async fn assert_limits_hold(stack: &Stack, host: u8) {
    let client = stack.client(host);
    let retried = stack.retried().await;
    let mut placed = 0;
    for _ in 0..20 {
        let answer = order(&client).await;
        assert!([201, 429].contains(&answer.status), "{answer:?}");
        placed += u64::from(answer.status == 201);
    }
    let twice = stack.retried().await - retried;
    assert!((10 - twice.min(10)..=10).contains(&placed), "{placed} placed, {twice} charged twice");
}

/// While the store is away, the limit of ten is not enforced and the log says so.
async fn assert_all_pass_degraded(stack: &Stack, host: u8) {
    let client = stack.client(host);
    for _ in 0..15 {
        let answer = order(&client).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(answer.took() < IN_TIME, "{:?}", answer.took());
    }
    let address = format!("127.0.0.{host}");
    let degraded = stack.envoy.logged("a degraded decision", |line| {
        line["client"] == address.as_str()
            && line["tollgate"].to_string().contains("\"degraded\":true")
    });
    degraded.await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_while_redis_is_away_and_limited_when_it_is_back() {
    let Some(mut stack) = Stack::start().await else { return };
    let traffic = Traffic::start(&stack, 11..=14);
    assert_limits_hold(&stack, 21).await;
    for round in 0..2 {
        stack.redis.stop();
        assert_all_pass_degraded(&stack, 31 + round).await;
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
    stack.redis.pause();
    assert_all_pass_degraded(&stack, 31).await;
    // Until the connections are given up and new ones stay without an answer.
    until_store_is(&stack, false).await;
    assert_all_pass_degraded(&stack, 32).await;
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
