//! Redis that answers with an error: full, read-only, busy with a script. It decides nothing then,
//! and calls do not wait.

use crate::single::{check, served};
use crate::support::redis::RedisServer;

fn set(redis: &RedisServer, key: &str, value: &str) {
    redis::cmd("CONFIG").arg(&["SET", key, value]).exec(&mut redis.connection()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_redis_is_decided_by_shares() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let (tollgate, callers) = served(redis.url(), &[]).await;
    set(&redis, "maxmemory", "1");
    callers.degraded(1_000).await;
    set(&redis, "maxmemory", "0");
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
    let replicate = |of: [&str; 2]| {
        redis::cmd("REPLICAOF").arg(&of).exec(&mut redis.connection()).unwrap();
    };
    // Of a primary that is not there: read-only, with its data.
    replicate(["127.0.0.1", "1"]);
    callers.degraded(1_000).await;
    replicate(["NO", "ONE"]);
    callers.back().await;
    check(&callers.stop().await, 2);
}
