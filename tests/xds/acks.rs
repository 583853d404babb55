//! What is accepted, what is refused, and how often.

use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::ads::{Ads, response};
use crate::options;
use crate::resources::{resource, simple};
use crate::support::grpc::codes;
use crate::support::tollgate::request;

fn bad() -> prost_types::Any {
    let limit = json!({"unit": 0, "requests_per_unit": 1});
    let descriptors = json!([{"key": "k", "rate_limit": limit}]);
    resource(&json!({"name": "shop/edge/bad", "domain": "bad", "descriptors": descriptors}))
}

#[tokio::test]
async fn fault_in_one_resource_refuses_all_and_a_loop_of_refusals_is_slow() {
    let ads = Ads::start();
    let tollgate = options(&ads).start();
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("shop", 2)]);
    let changed = vec![simple("shop", 1_000), bad()];
    ads.push("2", "b", changed.clone());
    let reason = "shop/edge/bad: invalid rate limit unit 'UNKNOWN'";
    assert_eq!(ads.nacked("1", "b"), reason);
    let mut client = tollgate.client().await;
    let call = request("shop", &[&[("k", "v")]]);
    let expected = [Code::Ok, Code::Ok, Code::OverLimit];
    assert_eq!(codes(&mut client, &call, 3).await, expected, "the old limit");

    // As the cache of go-control-plane does: the answer to a NACK is the same content at once.
    let begun = Instant::now();
    for (nonce, seconds) in [("c", 1), ("d", 3)] {
        ads.push("2", nonce, changed.clone());
        assert_eq!(ads.nacked("1", nonce), reason);
        assert!(begun.elapsed() >= Duration::from_secs(seconds), "{:?}", begun.elapsed());
    }
    // Something else is not delayed, and ends the wait of what is refused.
    let begun = Instant::now();
    ads.push("2", "e", changed);
    ads.push("3", "f", vec![simple("shop", 3)]);
    assert_eq!(ads.nacked("1", "e"), reason);
    ads.acked("3", "f");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(codes(&mut client, &call, 2).await, [Code::Ok, Code::OverLimit], "the new limit");

    let count = |result: &str| {
        tollgate.metric(&format!("tollgate_xds_responses_total{{result=\"{result}\"}}"))
    };
    assert_eq!((count("ok"), count("refused")), (Some(2.0), Some(4.0)));
    let told = tollgate.log().into_iter().filter(|line| line.contains("invalid rate limit unit"));
    assert_eq!(told.count(), 1, "logged once");
    assert!(tollgate.metric("tollgate_xds_last_accepted_timestamp_seconds").unwrap() > 1e9);
}

#[tokio::test]
async fn equal_content_is_accepted_and_changes_nothing() {
    let ads = Ads::start();
    let tollgate = options(&ads).start();
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("x", 1), simple("y", 1)]);
    let version = tollgate.metric("tollgate_policy_version");
    ads.accepted("2", "b", vec![simple("y", 1), simple("x", 1)]);
    assert_eq!(tollgate.metric("tollgate_policy_version"), version);
    assert_eq!(tollgate.metric("tollgate_xds_responses_total{result=\"unchanged\"}"), Some(1.0));
    ads.push("3", "c", vec![bad()]);
    ads.nacked("2", "c");
}

#[tokio::test]
async fn responses_of_another_type_are_not_answered() {
    let ads = Ads::start();
    let _tollgate = options(&ads).start();
    ads.subscribed();
    let other = response("1", "a", Vec::new());
    ads.send(tollgate::control::feeds::xds::pb::DiscoveryResponse {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..other
    });
    ads.accepted("2", "b", vec![simple("x", 1)]);
}

#[tokio::test]
async fn undecodable_resource_is_refused_with_a_reason() {
    let ads = Ads::start();
    let tollgate = options(&ads).start();
    ads.subscribed();
    ads.push("1", "a", vec![prost_types::Any { value: vec![0xff], ..simple("x", 1) }]);
    let reason = ads.nacked("", "a");
    assert!(reason.starts_with("a resource: cannot be decoded: "), "{reason}");
    ads.push("2", "b", vec![simple("x", 1), resource(&json!({"name": "y", "domain": "x"}))]);
    assert_eq!(ads.nacked("", "b"), "y: duplicate domain 'x' in config file");
    ads.accepted("3", "c", vec![simple("x", 1)]);
    assert_eq!(tollgate.metric("tollgate_policy_last_reload_successful"), Some(1.0));
}
