//! Domains that go: at once on an old stream, after a quiet moment on a new one.

use std::time::{Duration, Instant};

use tollgate::edge::pb::rate_limit_response::Code;

use crate::ads::Ads;
use crate::options;
use crate::resources::simple;
use crate::support::grpc::codes;
use crate::support::tollgate::request;

/// The time of a stream in which nothing is removed.
const GRACE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn empty_set_with_an_empty_version_removes_every_limit() {
    let ads = Ads::start();
    let tollgate = options(&ads).start();
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("x", 0)]);
    let mut client = tollgate.client().await;
    let call = request("x", &[&[("k", "v")]]);
    assert_eq!(codes(&mut client, &call, 1).await, [Code::OverLimit]);
    ads.accepted("", "b", Vec::new());
    tollgate.wait_for("no domain", || tollgate.metric("tollgate_domains") == Some(0.0));
    assert_eq!(codes(&mut client, &call, 1).await, [Code::Ok]);
    ads.accepted("2", "c", vec![simple("x", 0)]);
    assert_eq!(codes(&mut client, &call, 1).await, [Code::OverLimit]);
}

#[tokio::test]
async fn restart_of_the_control_plane_loses_no_domain_that_comes_late() {
    let ads = Ads::start();
    let tollgate = options(&ads).set("xds.backoff.initial=100ms").start();
    ads.subscribed();
    ads.accepted("1", "1", vec![simple("x", 1), simple("y", 1), simple("z", 1)]);
    tollgate.wait_for("grace", || tollgate.metric("tollgate_domains") == Some(3.0));

    let ads = Ads::at(ads.stop(), None);
    tollgate.wait_for_log("no stream of the control plane");
    assert_eq!(tollgate.metric("tollgate_domains"), Some(3.0), "kept without a stream");
    // Versions and nonces begin anew.
    ads.subscribed();
    ads.accepted("1", "1", vec![simple("x", 5)]);
    let mut client = tollgate.client().await;
    let call = |domain| request(domain, &[&[("k", "v")]]);
    let five = [Code::Ok, Code::Ok, Code::Ok, Code::Ok, Code::Ok, Code::OverLimit];
    assert_eq!(codes(&mut client, &call("x"), 6).await, five, "changed at once");
    // So late come the domains of other gateways.
    assert!(ads.event_within(Duration::from_millis(300)).is_none());
    let pushed = Instant::now();
    ads.accepted("2", "2", vec![simple("x", 5), simple("y", 1)]);
    for domain in ["y", "z"] {
        let held = codes(&mut client, &call(domain), 2).await;
        let late = domain == "z" && pushed.elapsed() >= GRACE;
        assert!(late || held == [Code::Ok, Code::OverLimit], "{domain}: {held:?}");
    }
    tollgate.wait_for("z is removed", || tollgate.metric("tollgate_domains") == Some(2.0));
    // Later removals do not wait.
    ads.accepted("3", "3", vec![simple("x", 5)]);
    assert_eq!(tollgate.metric("tollgate_domains"), Some(1.0));
}

#[tokio::test]
async fn stream_that_ends_in_order_is_followed_within_a_second() {
    let ads = Ads::start();
    let tollgate = options(&ads).start();
    ads.subscribed();
    ads.accepted("7", "a", vec![simple("x", 1)]);
    ads.end_stream();
    let request = ads.request_within(Duration::from_millis(1_500)).expect("a new stream");
    assert_eq!((&*request.version_info, &*request.response_nonce), ("", ""));
    tollgate.wait_for_log("the control plane has ended the stream");
    ads.accepted("7", "a", vec![simple("x", 1)]);
}
