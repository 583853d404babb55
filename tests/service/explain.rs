//! What one replica explains is what another one then decides, with Redis between them.

use redis::Commands as _;
use serde_json::Value;
use tollgate::edge::admin::pb::explain_response::Descriptor;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};
use tollgate::edge::pb::{RateLimitDescriptor, RateLimitRequest};

use crate::support::grpc::{ask, metadata};
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::Options;
use crate::support::wait::until;
use crate::traffic::{Traffic, slow_policy};

const SEED: u64 = 11;

/// How much later the decision may be than the explanation.
const LATER_MS: u64 = 60_000;

/// Of one descriptor: what was told, the answer, and what the answer's metadata says.
fn assert_agree(told: &Descriptor, status: &DescriptorStatus, shown: &Value, context: &str) {
    let is = |flag: &str| shown[flag] == true;
    let over = status.code() == Code::OverLimit;
    assert_eq!((over, is("over_limit")), (told.over_limit(), told.over_limit()), "{context}");
    assert_eq!(told.client, shown["client"].as_str().unwrap_or_default(), "{context}");
    assert_eq!(told.rule, shown["rule"].as_str().unwrap_or_default(), "{context}");
    assert_eq!(told.decided_by == "client", !told.client.is_empty(), "{context}");
    assert_eq!(told.unlimited(), status.limit_remaining == u32::MAX, "{context}");
    let invalid = shown["reason"] == "invalid_override";
    assert_eq!(told.decided_by == "invalid_override", invalid, "{context}");
    let Some(limit) = &status.current_limit else { return };
    let [counter] = told.counters.as_slice() else { panic!("{context}: one limit each: {told:?}") };
    let told_limit = counter.limit.as_ref().unwrap();
    assert_eq!(told_limit.requests_per_unit(), limit.requests_per_unit, "{context}");
    assert_eq!(told_limit.name, limit.name, "{context}");
    if counter.passes() {
        assert_eq!(counter.remaining(), u64::from(status.limit_remaining), "{context}");
    } else {
        assert!(over || is("shadow"), "{context}");
        let retry = shown["retry_after_ms"].as_f64().map(|ms| ms as u64);
        let apart = counter.retry_after_ms.zip(retry).map_or(0, |(told, is)| told.abs_diff(is));
        assert!(apart < LATER_MS, "{context}: {apart} ms apart");
        assert_eq!(counter.retry_after_ms.is_some(), retry.is_some(), "{context}");
    }
}

/// Whether it leaves something in its counter when it passes.
fn charges(descriptor: &RateLimitDescriptor) -> bool {
    !descriptor.is_negative_hits && descriptor.hits_addend != Some(0)
}

#[tokio::test]
async fn explain_agrees_with_the_other_replica_a_thousand_times() {
    let Some(redis) = RedisServer::start() else { return };
    // This is about what is decided, not about how quickly a busy machine answers.
    // Nor about the slot that a denied caller is told beyond that.
    let options = || {
        let options = Options::serving(&slow_policy()).redis(redis.url());
        options.set("store.deadline=5s").set("limits.retry_spread=off")
    };
    let (here, there) = (options().start(), options().start());
    let (operator, other) = (Operator::of(&here).await, Operator::of(&there).await);
    let (mut caller, mut counters) = (there.client().await, redis.connection());
    let mut traffic = Traffic::slow(SEED);
    let (mut by_client, mut denied, mut keys) = (0, 0, 0);
    for round in 0..1_000 {
        if traffic.random.chance(10) {
            let put = operator.put(vec![traffic.client()]).await.unwrap();
            until("the other replica follows", async || {
                (other.list().await.unwrap().1 >= put.revision()).then_some(())
            })
            .await;
        }
        let request: RateLimitRequest = traffic.request();
        let context = format!("seed {SEED}, round {round}: {request:?}");
        let told = operator.explain(request.clone()).await;
        let answer = ask(&mut caller, request.clone()).await;
        assert_eq!(told.overall_code(), answer.overall_code(), "{context}");
        let shown = metadata(&answer)["descriptors"].clone();
        assert_eq!(told.descriptors.len(), answer.statuses.len(), "{context}");
        for (i, (told, status)) in told.descriptors.iter().zip(&answer.statuses).enumerate() {
            assert_agree(told, status, &shown[i], &context);
            by_client += usize::from(told.decided_by == "client");
            if answer.overall_code() == Code::Ok && charges(&request.descriptors[i]) {
                for counter in told.counters.iter().filter(|counter| counter.passes()) {
                    assert!(counters.exists::<_, bool>(&counter.key).unwrap(), "{context}");
                    keys += 1;
                }
            }
        }
        denied += usize::from(told.overall_code() == Code::OverLimit);
    }
    assert!(by_client > 200 && denied > 200 && keys > 50, "{by_client} {denied} {keys}");
}
