//! Redis that answers with an error: full, read-only, busy with a script. It decides nothing then,
//! and calls do not wait.

use crate::single::{check, served};
use crate::support::redis::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_redis_is_decided_by_shares() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let (tollgate, callers) = served(redis.url(), &[]).await;
    redis.fill();
    callers.degraded(1_000).await;
    redis.make_room();
    callers.back().await;
    let seen = callers.stop().await;
    check(&seen, 2);
    let rejected = tollgate.metric("tollgate_store_errors_total{kind=\"rejected\"}").unwrap();
    assert!(rejected >= 500.0, "{rejected}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_redis_is_decided_by_shares() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let (_tollgate, callers) = served(redis.url(), &[]).await;
    redis.demote();
    callers.degraded(1_000).await;
    redis.promote();
    callers.back().await;
    check(&callers.stop().await, 2);
}
