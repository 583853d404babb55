//! Requests of which tollgate hears no end.

use std::time::Instant;

use serde_json::json;

use super::configuration;
use super::edge::{ESTIMATE, Edge, VERSIONS, Version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denial_that_envoy_does_not_enforce_holds_nothing() {
    let start = Edge::start_with(|envoy| {
        let filter = &mut configuration::filters(envoy)[0]["typed_config"];
        filter["filter_enforced"]["default_value"]["numerator"] = json!(0);
    });
    let Some(edge) = start.await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let mut holding = edge.client(version).await;
        let answer = holding.begin("begin", &[("x-turn", &user)]).await.unwrap();
        let (before, asked) = (edge.calls().await, edge.upstream.asked());
        let held = ["reserved", "settled", "self_settled"].map(|state| edge.holds(state));
        let denied = denials(&edge).await;
        let beyond = [("x-turn", &*user), ("x-user", &*user)];
        assert_eq!(edge.client(version).await.get("ok", &beyond).await.0, 200, "{version:?}");
        assert_eq!(edge.upstream.asked() - asked, 1, "{version:?}");
        assert_eq!(denials(&edge).await - denied, 1, "{version:?}: tollgate has denied it");
        assert_eq!(edge.taken("edge", &user).await, (0, 0), "{version:?}");
        assert_eq!(edge.calls().await - before, 1, "{version:?}: nothing is said at the end");
        let now = ["reserved", "settled", "self_settled"].map(|state| edge.holds(state));
        assert_eq!(now, held, "{version:?}");
        drop((answer, holding));
        edge.assert_all_is_settled().await;
    }
}

/// The requests that tollgate has denied, as Envoy counts them.
async fn denials(edge: &Edge) -> u64 {
    let stats = edge.envoy.stats().await;
    stats.get("cluster.backends.ratelimit.over_limit").copied().unwrap_or(0)
}

/// Nobody says that the stream has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_of_an_envoy_that_is_killed_is_free_after_its_ttl() {
    let Some(mut edge) = Edge::start().await else { return };
    let (user, began) = (edge.new_user(), Instant::now());
    let mut client = edge.client(Version::Two).await;
    let headers = [("x-user", &*user), ("x-brief", &*user)];
    let _answer = client.begin("begin", &headers).await.unwrap();
    edge.assert_nothing_was_bypassed().await;
    edge.envoy.kill();
    edge.until_brief_slot_ends(&user, began).await;
    assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE), "a longer ttl lasts");
    let states = ["reserved", "settled", "self_settled", "again", "late", "invalid"];
    assert_eq!(states.map(|state| edge.holds(state)), [3, 0, 0, 0, 0, 0]);
    assert_eq!(edge.tollgate.errors(), [""; 0]);
}
