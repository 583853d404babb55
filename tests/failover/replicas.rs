//! Several replicas: shares of one limit, heartbeats, replicas that come and go, and a start
//! without Redis.

use std::time::Duration;

use tollgate::edge::pb::rate_limit_response::Code;

use crate::callers::Callers;
use crate::single::{POLICIES, check};
use crate::support::grpc::{ask, codes, is_degraded, metadata};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const DAY: &str = "
domain: d
descriptors:
  - {key: day, rate_limit: {unit: day, requests_per_unit: 16}}
  - {key: few, rate_limit: {unit: day, requests_per_unit: 3}}
";

fn start(policies: &str, url: String, settings: &[&str]) -> Tollgate {
    let options = Options::serving(policies).redis(url).set("grpc.cores=1");
    settings.iter().fold(options, |options, setting| options.set(*setting)).start()
}

async fn admitted(tollgate: &Tollgate, key: &str, value: &str, asked: usize) -> usize {
    let (mut client, request) = (tollgate.client().await, request("d", &[&[(key, value)]]));
    let answers = codes(&mut client, &request, asked).await;
    answers.iter().filter(|code| **code == Code::Ok).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_have_seen_each_other_share_the_limit() {
    let _alone = crate::alone().await;
    let Some(mut redis) = RedisServer::start() else { return };
    let replicas: Vec<Tollgate> = (0..3).map(|_| start(DAY, redis.url(), &[])).collect();
    for replica in &replicas {
        replica.wait_for_metric("tollgate_replicas_seen", 3.0);
    }
    redis.stop();
    for replica in &replicas {
        replica.wait_for("Redis is away", || replica.metric("tollgate_store_up") == Some(0.0));
    }
    let (mut of_day, mut of_few) = (0, 0);
    for replica in &replicas {
        of_day += admitted(replica, "day", "a", 20).await;
        of_few += admitted(replica, "few", "a", 20).await;
    }
    assert_eq!((of_day, of_few), (16, 3));
    let answer = ask(&mut replicas[0].client().await, request("d", &[&[("day", "a")]])).await;
    assert_eq!(metadata(&answer)["descriptors"][0]["replicas"], 3.0);
    assert!(is_degraded(&answer));
    replicas[0].wait_for_log("each of 3 replicas (seen in Redis)");

    // Back without its data: the limit holds again for all, with what the shares have admitted.
    redis.restart();
    for replica in &replicas {
        replica.wait_for_metric("tollgate_store_up", 1.0);
    }
    let mut after = 0;
    for replica in &replicas {
        after += admitted(replica, "day", "a", 20).await;
    }
    assert_eq!(after, 0, "all that was admitted was told: {:#?}", replicas[0].log());
    for replica in &replicas {
        let errors = replica.errors();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_redis_do_not_make_shares_larger() {
    let _alone = crate::alone().await;
    let Some(mut redis) = RedisServer::start() else { return };
    let replicas: Vec<Tollgate> = (0..3).map(|_| start(DAY, redis.url(), &[])).collect();
    for replica in &replicas {
        replica.wait_for_metric("tollgate_replicas_seen", 3.0);
    }
    for _ in 0..2 {
        redis.restart();
        std::thread::sleep(Duration::from_millis(500));
    }
    redis.stop();
    replicas[0].wait_for_metric("tollgate_store_breaker{state=\"down\"}", 1.0);
    let mut all = 0;
    for (i, replica) in replicas.iter().enumerate() {
        assert_eq!(replica.metric("tollgate_replicas_seen"), Some(3.0), "replica {i}");
        all += admitted(replica, "day", "a", 20).await;
    }
    assert_eq!(all, 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_without_redis_takes_eight_replicas_or_the_setting() {
    let _alone = crate::alone().await;
    let Some(mut redis) = RedisServer::start() else { return };
    redis.stop();
    let unknown = start(DAY, redis.url(), &[]);
    assert_eq!(admitted(&unknown, "day", "a", 20).await, 2);
    unknown.wait_for_log("set failover.replicas");
    let told = start(DAY, redis.url(), &["failover.replicas=2"]);
    assert_eq!(admitted(&told, "day", "a", 20).await, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_that_is_cut_off_stays_within_twice_the_limit() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let proxies: Vec<Proxy> = (0..3).map(|_| Proxy::start(redis.port())).collect();
    let replicas: Vec<Tollgate> =
        proxies.iter().map(|proxy| start(POLICIES, proxy.url(), &[])).collect();
    let mut clients = Vec::new();
    for replica in &replicas {
        replica.wait_for_metric("tollgate_replicas_seen", 3.0);
        clients.push(replica.client().await);
    }
    let callers = Callers::start(clients, &["sliding", "bucket", "fixed"]);
    callers.well(1_000).await;
    proxies[0].cut();
    callers.run(Duration::from_secs(2)).await;
    proxies.iter().for_each(Proxy::cut);
    callers.run(Duration::from_secs(2)).await;
    proxies.iter().for_each(Proxy::mend);
    callers.well(1_000).await;
    callers.run(Duration::from_secs(2)).await;
    let seen = callers.stop().await;
    check(&seen, 2);
}
