//! Redis fails in every known way while traffic goes on: every request is still answered in time by
//! a tollgate, and the limits hold.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use crate::stack::{Stack, metric_of};
use crate::support::envoy::ATTEMPT;
use crate::support::proxy::Delay;
use crate::support::wait::until;
use crate::traffic::{Traffic, order, slowest};

/// Tollgate gives Redis 10 ms; the rest is for a machine that does other things too. It is less
/// than Envoy waits for one tollgate, so an answer in this time is of the first that Envoy asked.
const IN_TIME: Duration = Duration::from_millis(250);
const _: () = assert!(IN_TIME.as_millis() < ATTEMPT.as_millis());

/// The orders of an address in a minute.
const LIMIT: u64 = 10;

/// The client that orders during failures.
const HOST: u8 = 31;

/// A failure of Redis.
struct Failure {
    begin: fn(&mut Stack),
    end: fn(&mut Stack),
    /// The most orders of a client that Redis lets pass meanwhile.
    passed_by_redis: u64,
}

impl Failure {
    /// A failure during which Redis decides nothing.
    fn total(begin: fn(&mut Stack), end: fn(&mut Stack)) -> Self {
        Self { begin, end, passed_by_redis: 0 }
    }

    /// Happens to `stack` twice, each time for longer than connections wait for an answer.
    async fn assert_survived(self, mut stack: Stack) {
        let traffic = Traffic::start(&stack, 11..=14);
        assert_limits_hold(&stack, 21..=23).await;
        until_replicas_are_seen(&stack).await;
        for (round, fresh) in [41..=43, 44..=46].into_iter().enumerate() {
            let before = degraded(&stack).await;
            (self.begin)(&mut stack);
            self.assert_shares_decide(&stack, 2 * round).await;
            traffic.goes_on_for(60).await;
            until_both_decide_without_redis(&stack, before).await;
            self.assert_shares_decide(&stack, 2 * round + 1).await;
            (self.end)(&mut stack);
            until_store_is_up(&stack).await;
            assert_limits_hold(&stack, fresh).await;
        }
        let answers = traffic.end().await;
        assert!(slowest(&answers) < IN_TIME, "{:?} of {}", slowest(&answers), answers.len());
        stack.assert_nothing_was_bypassed().await;
    }

    /// Each tollgate has one share of the limit for all failures, and the log says so. The client
    /// has ordered `times` times before.
    async fn assert_shares_decide(&self, stack: &Stack, times: usize) {
        // More than Redis and the shares let pass together.
        let lines = place_orders(stack, HOST, 25, times).await;
        let by_shares = placed(&lines, is_degraded);
        let by_redis = placed(&lines, |line| !is_degraded(line));
        assert!(
            by_shares <= LIMIT
                && by_redis <= self.passed_by_redis
                && by_shares + by_redis >= LIMIT / 2,
            "{by_shares} placed by shares, {by_redis} by Redis"
        );
    }
}

/// Of a client that has placed nothing yet, Redis lets ten orders pass and refuses the next. A busy
/// machine or a slow disk may miss Redis' 10 ms or Envoy's timeout. Then this holds for the next
/// client, once Redis answers again.
async fn assert_limits_hold(stack: &Stack, clients: RangeInclusive<u8>) {
    let mut tries = Vec::new();
    for host in clients {
        let retried = stack.retried().await;
        let lines = place_orders(stack, host, 15, 0).await;
        let by_redis = placed(&lines, |line| !is_degraded(line));
        assert!(by_redis <= LIMIT, "{by_redis} placed by Redis");
        let twice = stack.retried().await - retried;
        let degraded = lines.iter().filter(|line| is_degraded(line)).count();
        if (twice, degraded) == (0, 0) {
            assert_eq!(by_redis, LIMIT, "placed");
            return;
        }
        tries.push(format!("{by_redis} placed, {degraded} without Redis, {twice} asked twice"));
        until_store_is_up(stack).await;
    }
    panic!("Redis has not decided all orders of any client: {tries:#?}");
}

/// Orders, which are all answered in time. The lines of the access log about this client, who has
/// placed as many orders `times` times before.
async fn place_orders(stack: &Stack, host: u8, orders: usize, times: usize) -> Vec<Value> {
    let client = stack.client(host);
    for _ in 0..orders {
        let answer = order(&client).await;
        assert!([201, 429].contains(&answer.status), "{answer:?}");
        assert!(answer.took() < IN_TIME, "{:?}", answer.took());
    }
    stack.envoy.logged_of(&format!("127.0.0.{host}"), orders * (times + 1)).await
}

/// The number of placed orders among those that fit.
fn placed(lines: &[Value], fits: impl Fn(&Value) -> bool) -> u64 {
    lines.iter().filter(|line| line["code"] == 201 && fits(line)).count() as u64
}

fn is_degraded(line: &Value) -> bool {
    line["tollgate"].to_string().contains("\"degraded\":true")
}

/// The limits that each tollgate has decided without Redis.
async fn degraded(stack: &Stack) -> [u64; 2] {
    let [first, second] = &stack.tollgates;
    let name = "tollgate_degraded_claims_total";
    [metric_of(first, name).await, metric_of(second, name).await]
}

async fn until_both_decide_without_redis(stack: &Stack, before: [u64; 2]) {
    until("both tollgates decide without Redis", async || {
        let now = degraded(stack).await;
        (now[0] > before[0] && now[1] > before[1]).then_some(())
    })
    .await;
}

/// Both tollgates know of each other, so each has half of a limit.
async fn until_replicas_are_seen(stack: &Stack) {
    until("the tollgates have seen each other", async || {
        (stack.metric("tollgate_replicas_seen").await == 4).then_some(())
    })
    .await;
}

async fn until_store_is_up(stack: &Stack) {
    until("both tollgates use Redis", async || {
        (stack.metric("tollgate_store_up").await == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_redis_with_its_data_is_survived() {
    let Some(stack) = Stack::start().await else { return };
    let failure = Failure::total(|stack| stack.redis.stop(), |stack| stack.redis.restart());
    failure.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_redis_without_its_data_is_survived() {
    let Some(stack) = Stack::start().await else { return };
    let failure = Failure::total(|stack| stack.redis.stop(), |stack| stack.redis.restart_empty());
    failure.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_redis_is_survived() {
    let Some(stack) = Stack::start().await else { return };
    let failure = Failure::total(|stack| stack.redis.pause(), |stack| stack.redis.resume());
    failure.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_redis_is_survived() {
    let Some(stack) = Stack::start().await else { return };
    let failure = Failure::total(|stack| stack.redis.fill(), |stack| stack.redis.make_room());
    failure.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_redis_is_survived() {
    let Some(stack) = Stack::start().await else { return };
    let failure = Failure::total(|stack| stack.redis.demote(), |stack| stack.redis.promote());
    failure.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_redis_is_survived() {
    let Some(stack) = Stack::start_through_proxy().await else { return };
    let slow = |stack: &mut Stack| {
        let (p50, p99) = (Duration::from_millis(8), Duration::from_millis(25));
        stack.proxy().delay(Delay::LogNormal { p50, p99 });
    };
    let fast = |stack: &mut Stack| stack.proxy().delay(Delay::None);
    // Some answers are in time.
    Failure { begin: slow, end: fast, passed_by_redis: LIMIT }.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_connections_are_survived() {
    let Some(stack) = Stack::start_through_proxy().await else { return };
    let failure = Failure::total(|stack| stack.proxy().cut(), |stack| stack.proxy().mend());
    failure.assert_survived(stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_survived() {
    let Some(stack) = Stack::start_through_proxy().await else { return };
    let failure = Failure::total(|stack| stack.proxy().silence(), |stack| stack.proxy().mend());
    failure.assert_survived(stack).await;
}
