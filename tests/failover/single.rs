//! One replica: Redis frozen, flapping, killed, and back with or without its data.

use std::time::Duration;

use crate::callers::{Callers, Seen};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};

/// Limits of each algorithm, with a hundred hits a second.
pub const POLICIES: &str = "
domain: d
descriptors:
  - key: sliding
    rate_limit: {unit: second, requests_per_unit: 100, algorithm: sliding_window}
  - key: bucket
    rate_limit: {unit: second, requests_per_unit: 100, algorithm: token_bucket, burst: 20}
  - key: fixed
    rate_limit: {unit: second, requests_per_unit: 100, algorithm: fixed_window}
";

/// The keys, and their promises.
pub const PROMISES: [(&str, &str); 2] =
    [("sliding", "sliding_window 100/s"), ("bucket", "token_bucket 100/s burst 20")];

/// The time that a timer and the way there and back may add.
const SLACK: Duration = Duration::from_millis(5);

/// A tollgate before `redis`, and callers that it serves well.
pub async fn served(url: String, settings: &[&str]) -> (Tollgate, Callers) {
    let mut options = Options::serving(POLICIES).redis(url).set("grpc.cores=2");
    for setting in settings {
        options = options.set(*setting);
    }
    let tollgate = options.start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(tollgate.client().await);
    }
    let callers = Callers::start(clients, &["sliding", "bucket", "fixed"]);
    callers.well(1_000).await;
    (tollgate, callers)
}

/// Checks that hold in every schedule.
pub fn check(seen: &Seen, bound: u32) {
    seen.assert_all_answered();
    for (key, promise) in PROMISES {
        seen.of_key(key).assert_within(promise, bound);
    }
    let (p99, lag) = (seen.quantile(0.99), seen.lag(0.99));
    assert!(p99 < Duration::from_millis(15) + SLACK + 2 * lag, "p99 {p99:?}, lag {lag:?}");
}

fn timeouts(tollgate: &Tollgate) -> f64 {
    tollgate.metric("tollgate_store_errors_total{kind=\"timeout\"}").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_redis_keeps_few_calls_waiting_and_the_bound_holds() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let (tollgate, callers) = served(redis.url(), &[]).await;
    redis.pause();
    let (frozen, before) = (callers.now(), timeouts(&tollgate));
    callers.run(Duration::from_secs(3)).await;
    redis.resume();
    let thawed = callers.now();
    callers.back().await;
    callers.run(Duration::from_secs(1)).await;
    let seen = callers.stop().await;
    check(&seen, 2);
    let during = seen.between(frozen + Duration::from_millis(100), thawed);
    assert!(during.degraded() > 2_500, "{} of {}", during.degraded(), during.0.len());
    // Per core two frames are in flight, each with the calls of a moment.
    let waited = timeouts(&tollgate) - before;
    assert!(waited <= 24.0, "{waited} calls waited for the whole deadline");
    let used = during.between(frozen + Duration::from_secs(1), thawed);
    let (fast, lag) = (used.quantile(0.5), used.lag(0.5));
    assert!(fast < Duration::from_millis(2) + 2 * lag, "refused within {fast:?}, lag {lag:?}");
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flapping_redis_gives_no_new_share_each_time() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let (_tollgate, callers) = served(redis.url(), &[]).await;
    for _ in 0..10 {
        redis.pause();
        callers.run(Duration::from_millis(200)).await;
        redis.resume();
        callers.run(Duration::from_millis(300)).await;
    }
    check(&callers.stop().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_redis_is_decided_by_shares_and_told_when_it_is_back() {
    let _alone = crate::alone().await;
    let Some(mut redis) = RedisServer::start() else { return };
    let (tollgate, callers) = served(redis.url(), &[]).await;
    redis.stop();
    callers.degraded(2_000).await;
    redis.restart();
    callers.back().await;
    callers.run(Duration::from_secs(1)).await;
    let seen = callers.stop().await;
    // The data of Redis is lost: one capacity more.
    check(&seen, 3);
    tollgate.wait_for_metric("tollgate_told_hits_total", 1.0);
    assert_eq!(tollgate.metric("tollgate_untold_keys"), Some(0.0));
}
