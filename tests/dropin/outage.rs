//! Redis is away: the caller decides, and health says so if it is asked to.

use std::time::Duration;

use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::ask;
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, request};

const POLICIES: &str =
    "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 100000}}\n";

#[tokio::test]
async fn call_fails_within_its_time_and_health_follows_redis_if_asked_to() {
    let Some(mut redis) = RedisServer::start() else { return };
    let options = Options::serving(POLICIES).called_ratelimit().env("LOG_LEVEL", "info");
    let options = options.env("REDIS_URL", &format!("127.0.0.1:{}", redis.port()));
    let tollgate = options.env("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "true").start();
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("k", "v")]]);
    assert_eq!(ask(&mut client, asked.clone()).await.overall_code(), Code::Ok);
    redis.stop();
    let mut hurried = tonic::Request::new(asked.clone());
    hurried.set_timeout(Duration::from_millis(500));
    let refused = client.should_rate_limit(hurried).await.expect_err("no decision");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    tollgate.wait_for("unhealthy", || http::get(tollgate.at.http, "/healthcheck").status == 503);
    redis.restart();
    tollgate.wait_for_log("healthy again");
    assert_eq!(http::get(tollgate.at.http, "/healthcheck").status, 200);
    assert_eq!(ask(&mut client, asked).await.overall_code(), Code::Ok);
}

#[tokio::test]
async fn health_waits_for_a_domain_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    let options = Options::default()
        .called_ratelimit()
        .env("LOG_LEVEL", "info")
        .env("RUNTIME_ROOT", dir.path().to_str().unwrap());
    let tollgate = options.env("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "1").start();
    let health = http::get(tollgate.at.http, "/healthcheck");
    assert_eq!((health.status, health.body.trim()), (503, "no domain has a policy"));
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("a.yaml"), POLICIES).unwrap();
    tollgate.wait_for_log("healthy again");
    assert_eq!(http::get(tollgate.at.http, "/healthcheck").status, 200);
}
