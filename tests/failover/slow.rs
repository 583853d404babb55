//! Redis that answers slowly, or that a network cuts off.

use std::time::Duration;

use crate::single::{check, served};
use crate::support::proxy::{Delay, Proxy};
use crate::support::redis::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_redis_is_left_alone_until_it_is_fast() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let proxy = Proxy::start(redis.port());
    let (tollgate, callers) = served(proxy.url(), &[]).await;
    let (p50, p99) = (Duration::from_millis(8), Duration::from_millis(25));
    proxy.delay(Delay::LogNormal { p50, p99 });
    callers.run(Duration::from_secs(4)).await;
    proxy.delay(Delay::None);
    callers.back().await;
    let seen = callers.stop().await;
    check(&seen, 2);
    let waited = tollgate.metric("tollgate_store_errors_total{kind=\"timeout\"}").unwrap();
    assert!(waited < 800.0, "{waited} calls waited for the whole deadline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rare_late_replies_do_not_close_the_store_for_long() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let proxy = Proxy::start(redis.port());
    let (tollgate, callers) = served(proxy.url(), &[]).await;
    proxy.delay(Delay::Rarely { one_in: 50, delay: Duration::from_millis(40) });
    callers.run(Duration::from_secs(3)).await;
    proxy.delay(Delay::None);
    let seen = callers.stop().await;
    check(&seen, 2);
    let late = tollgate.metric("tollgate_late_answers_total").unwrap();
    assert!(late > 0.0, "no answer was late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_replica_decides_by_its_share() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let proxy = Proxy::start(redis.port());
    let (_tollgate, callers) = served(proxy.url(), &[]).await;
    proxy.cut();
    callers.degraded(2_000).await;
    proxy.mend();
    callers.back().await;
    check(&callers.stop().await, 2);
}
