//! The last good response in Redis: a start while the control plane is away.

use tollgate::edge::pb::rate_limit_response::Code;

use crate::ads::Ads;
use crate::options;
use crate::resources::simple;
use crate::support::grpc::codes;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Tollgate, request};

/// The codes of two requests to a limit of the domain `x`, as [`simple`] makes it.
async fn decided(tollgate: &Tollgate) -> Vec<Code> {
    let mut client = tollgate.client().await;
    codes(&mut client, &request("x", &[&[("k", "v")]]), 2).await
}

#[tokio::test]
async fn replica_that_starts_without_the_control_plane_has_its_last_limits() {
    let Some(redis) = RedisServer::start() else { return };
    let ads = Ads::start();
    let options = || options(&ads).redis(redis.url()).set("xds.keep_last=true");
    let first = options().start();
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("x", 1)]);
    assert_eq!(decided(&first).await, [Code::Ok, Code::OverLimit]);
    assert_eq!(first.metric("tollgate_xds_stale"), Some(0.0));
    drop(first);

    let away = options().set("xds.server=127.0.0.1:1").start();
    away.wait_for_metric("tollgate_xds_stale", 1.0);
    assert_eq!(decided(&away).await, [Code::OverLimit; 2], "the counter is in Redis, too");
    drop(away);

    let back = options().start();
    back.wait_for_metric("tollgate_xds_stale", 1.0);
    ads.subscribed();
    ads.accepted("1", "b", vec![simple("x", 3)]);
    back.wait_for("the answer", || back.metric("tollgate_xds_stale") == Some(0.0));
    assert_eq!(decided(&back).await, [Code::Ok, Code::Ok]);
}

/// Nothing is kept of a node that others have, or without the setting.
#[tokio::test]
async fn other_nodes_and_the_default_keep_nothing() {
    let Some(redis) = RedisServer::start() else { return };
    let ads = Ads::start();
    let first = options(&ads).redis(redis.url()).set("xds.keep_last=true").start();
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("x", 1)]);
    drop(first);
    for set in ["xds.node_id=other", "xds.keep_last=false"] {
        let options = options(&ads).redis(redis.url()).set("xds.keep_last=true").set(set);
        let other = options.set("xds.server=127.0.0.1:1").start();
        // Redis has been asked before the control plane is.
        other.wait_for_log("no stream of the control plane");
        let mut client = other.client().await;
        let refused = client.should_rate_limit(request("x", &[&[("k", "v")]])).await;
        assert_eq!(refused.expect_err(set).code(), tonic::Code::Unavailable);
    }
}
