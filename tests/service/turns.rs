//! Several limits in turn on one counter: what a smaller one asks forgives nothing of what a larger one has used.

use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_response::rate_limit::Unit;

use crate::support::grpc::{Client, ask, with_hits};
use crate::support::operator::{Operator, client, limit};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: hour, requests_per_unit: 500, algorithm: token_bucket}}
";

/// 500 an hour is a token in 7.2 seconds: as many may come back while a test runs.
const REFILLED: usize = 3;

fn asked(value: &str) -> RateLimitRequest {
    request("d", &[&[("k", value)]])
}

/// The same with a limit of one an hour that the caller brings along.
fn overridden(value: &str) -> RateLimitRequest {
    let mut asked = asked(value);
    let limit =
        RateLimitOverride { requests_per_unit: 1, unit: Unit::Hour.into(), unit_multiplier: None };
    asked.descriptors[0].limit = Some(limit);
    asked
}

async fn passes(client: &mut Client, asked: &RateLimitRequest) -> bool {
    ask(client, asked.clone()).await.overall_code() == Code::Ok
}

/// How many of `times` requests pass.
async fn passed(client: &mut Client, asked: &RateLimitRequest, times: usize) -> usize {
    let mut passed = 0;
    for _ in 0..times {
        passed += usize::from(passes(client, asked).await);
    }
    passed
}

async fn overrides_count_apart(tollgate: &Tollgate) {
    let mut caller = tollgate.client().await;
    let (mut of_rule, mut of_override) = (0, 0);
    for _ in 0..600 {
        of_rule += passed(&mut caller, &asked("a"), 2).await;
        of_override += usize::from(passes(&mut caller, &overridden("a")).await);
        // A peek charges nothing, and denied or not it must forgive nothing.
        ask(&mut caller, with_hits(overridden("a"), 0)).await;
    }
    assert!((500..=500 + REFILLED).contains(&of_rule), "{of_rule} by the rule");
    assert_eq!(of_override, 1);
}

async fn client_set_down_and_up_again_forgives_nothing(tollgate: &Tollgate) {
    let (operator, mut caller) = (Operator::of(tollgate).await, tollgate.client().await);
    let mut counts = Vec::new();
    for requests in [500, 5, 500, 5, 500] {
        let hourly =
            client("d", ("k", "b"), limit(requests, tollgate::edge::admin::pb::Unit::Hour));
        operator.upsert(hourly).await.unwrap();
        counts.push(passed(&mut caller, &asked("b"), 510).await);
    }
    assert!(counts[0] >= 500, "{counts:?}");
    assert!(counts.iter().sum::<usize>() <= 500 + REFILLED, "{counts:?}");
    assert_eq!((counts[1], counts[3]), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn smaller_limits_forgive_nothing_in_memory() {
    let tollgate = Options::serving(POLICY).start();
    overrides_count_apart(&tollgate).await;
    client_set_down_and_up_again_forgives_nothing(&tollgate).await;
}

#[tokio::test]
async fn smaller_limits_forgive_nothing_in_redis() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICY).redis(redis.url()).start();
    overrides_count_apart(&tollgate).await;
    client_set_down_and_up_again_forgives_nothing(&tollgate).await;
}
