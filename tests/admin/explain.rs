//! Explain agrees with the decision that another replica then makes, and charges nothing.

use tollgate::domain::Verdict;
use tollgate::edge::admin::pb::{ExplainRequest, ExplainResponse, explain_response};
use tollgate::edge::grpc::convert::from_pb;
use tollgate::edge::pb::rate_limit_descriptor::Entry;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::{RateLimitDescriptor, RateLimitRequest};
use tollgate::limiter::status::{Outcome, Status};

use crate::replica::{Replica, World, client, per_minute};
use crate::traffic::Traffic;

async fn explain(replica: &Replica, request: RateLimitRequest) -> ExplainResponse {
    let request = ExplainRequest { request: Some(request) };
    replica.policies.clone().explain(request).await.unwrap().into_inner()
}

fn assert_agree(told: &explain_response::Descriptor, status: &Status, request: &RateLimitRequest) {
    let same = |what, told: bool, is: bool| assert_eq!(told, is, "{what}: {request:?}");
    same("over limit", told.over_limit(), status.over_limit());
    same("shadow", told.shadow(), status.shadow);
    same("client", told.decided_by == "client", status.client.is_some());
    same("unlimited", told.unlimited(), matches!(status.outcome, Outcome::Unlimited));
    let invalid = matches!(status.outcome, Outcome::InvalidOverride);
    same("invalid override", told.decided_by == "invalid_override", invalid);
    same("client named", told.client.is_empty(), status.client.is_none());
    let Some(limited) = status.limited() else { return assert!(told.counters.is_empty()) };
    same("passes", told.counters.iter().all(explain_response::Counter::passes), limited.passed);
    let [counter] = told.counters.as_slice() else { panic!("one limit each: {told:?}") };
    let limit = counter.limit.as_ref().unwrap();
    assert_eq!(limit.requests_per_unit(), limited.limit.requests_per_unit);
    if limited.passed {
        assert_eq!(counter.remaining(), limited.remaining, "{request:?}");
        assert_eq!(counter.retry_after_ms, None);
    } else {
        let retry = limited.retry_after.map(|retry| retry.as_micros().div_ceil(1_000) as u64);
        assert_eq!(counter.retry_after_ms, retry, "{request:?}");
    }
}

#[tokio::test]
async fn explain_agrees_with_what_another_replica_decides_a_thousand_times() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    let mut traffic = Traffic::quick(7);
    let (mut by_client, mut denied) = (0, 0);
    for _ in 0..1_000 {
        if traffic.random.chance(10) {
            here.upsert(vec![traffic.client()]).await.unwrap();
            there.follow().await;
        }
        if traffic.random.chance(10) {
            world.advance(traffic.random.up_to(30));
        }
        let request = traffic.request();
        let told = explain(&here, request.clone()).await;
        assert_eq!(told, explain(&here, request.clone()).await, "explaining changes nothing");
        let decision = there.decide(&from_pb(&request).unwrap()).await;
        let over = decision.verdict == Verdict::Deny;
        assert_eq!(told.overall_code() == Code::OverLimit, over, "{request:?}");
        assert_eq!(told.descriptors.len(), decision.statuses.len());
        for (descriptor, status) in told.descriptors.iter().zip(&decision.statuses) {
            assert_agree(descriptor, status, &request);
            by_client += usize::from(status.client.is_some());
        }
        denied += usize::from(over);
    }
    assert!(by_client > 200 && (200..800).contains(&denied), "{by_client} {denied}");
}

#[tokio::test]
async fn explain_names_rule_client_key_and_hides_sensitive_values() {
    let world = World::new();
    let replica = world.replica().await;
    let request = |key: &'static str, value: &'static str| RateLimitRequest {
        domain: "edge".as_bytes().into(),
        descriptors: vec![RateLimitDescriptor {
            entries: vec![Entry { key: key.as_bytes().into(), value: value.as_bytes().into() }],
            ..RateLimitDescriptor::default()
        }],
        hits_addend: 0,
    };
    let told = explain(&replica, request("api_key", "acme")).await;
    let [descriptor] = told.descriptors.as_slice() else { panic!("{told:?}") };
    assert_eq!((&*descriptor.decided_by, &*descriptor.rule), ("rule", "api_key"));
    assert_eq!(descriptor.place, "edge.yaml:4:5");
    assert_eq!(descriptor.counters[0].key, "t:1:{edge|api_key=acme}:fixed_window:60s");
    assert!(told.domain_known());

    replica.upsert(vec![client(&[("secret", "hunter2")], vec![per_minute(1)])]).await.unwrap();
    let told = explain(&replica, request("secret", "hunter2")).await;
    assert_eq!(
        (&*told.descriptors[0].decided_by, &*told.descriptors[0].client_etag),
        ("client", "1")
    );
    assert!(told.descriptors[0].client.starts_with("secret="));
    assert!(!format!("{told:?}").replace("request", "").contains("hunter2"), "{told:?}");

    let told =
        explain(&replica, RateLimitRequest { domain: "x".into(), ..request("a", "b") }).await;
    assert_eq!((&*told.descriptors[0].decided_by, told.domain_known()), ("none", false));
}
