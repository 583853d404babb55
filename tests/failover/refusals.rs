//! Redis that answers with an error: full, read-only, busy with a script. It decides nothing then,
//! and calls do not wait.

use tollgate::edge::pb::rate_limit_response::Code;

use crate::single::{check, served};
use crate::support::grpc::codes;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

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

/// What shares have admitted is told once Redis takes it: not before, and not dropped meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_that_redis_refuses_to_take_are_told_again() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let policies = "domain: d\ndescriptors:\n  \
                    - {key: day, rate_limit: {unit: day, requests_per_unit: 16}}\n";
    let options = Options::serving(policies).redis(redis.url()).set("grpc.cores=1");
    let tollgate = options.set("failover.replicas=1").start();
    redis.demote();
    let admitted = async |tollgate: &Tollgate| {
        let (mut client, asked) = (tollgate.client().await, request("d", &[&[("day", "a")]]));
        let answers = codes(&mut client, &asked, 40).await;
        answers.iter().filter(|code| **code == Code::Ok).count()
    };
    assert_eq!(admitted(&tollgate).await, 16);
    // It connects again and again meanwhile, and each time is refused what it tells.
    tollgate.wait_for_log("it is told again");
    assert_eq!(admitted(&tollgate).await, 0);
    redis.promote();
    tollgate.wait_for_metric("tollgate_told_hits_total", 16.0);
    tollgate.wait_for_metric("tollgate_store_up", 1.0);
    assert_eq!(admitted(&tollgate).await, 0, "{:#?}", tollgate.log());
    assert_eq!(tollgate.metric("tollgate_told_hits_total"), Some(16.0));
}
