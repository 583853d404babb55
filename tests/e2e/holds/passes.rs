//! Requests that Envoy sends to the upstream more than once.

use serde_json::json;

use super::configuration;
use super::edge::{COST, ESTIMATE, Edge, VERSIONS};

/// The shipped route to the prices tries three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_is_tried_again_is_one_hold() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        for (path, status, used) in [("503", 503, ESTIMATE), ("third", 200, COST)] {
            let (user, before) = (edge.new_user(), edge.calls().await);
            let (settled, asked) = (edge.holds("settled"), edge.upstream.asked());
            let path = format!("v1/prices/{path}");
            let mut client = edge.client(version).await;
            let (found, headers) = client.get(&path, &[("x-user", &user)]).await;
            assert_eq!(found, status, "{version:?} {path}");
            assert_eq!(headers["x-envoy-attempt-count"], "3", "{version:?} {path}");
            assert_eq!(edge.upstream.asked() - asked, 3, "{version:?} {path}");
            edge.until_settled(&path, &user, used).await;
            assert_eq!(edge.calls().await - before, 2, "{version:?} {path}: one at each end");
            edge.until_holds("settled", settled + 2).await;
        }
    }
    edge.assert_all_is_settled().await;
}

/// The upstream takes one request, and is gone. That request may have run, and keeps its estimate.
/// The next one is never sent, and costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_was_never_sent_upstream_costs_nothing() {
    for version in VERSIONS {
        let Some(edge) = Edge::start().await else { return };
        for (sent, used) in [(1, ESTIMATE), (0, 0)] {
            let (user, asked) = (edge.new_user(), edge.upstream.asked());
            let mut client = edge.client(version).await;
            let (status, headers) = client.get("v1/prices/go", &[("x-user", &user)]).await;
            assert_eq!(status, 503, "{version:?}");
            assert_eq!(headers["x-envoy-attempt-count"], "3", "Envoy counts all that it tries");
            assert_eq!(edge.upstream.asked() - asked, sent, "{version:?}");
            edge.until_settled(&format!("{version:?}, sent {sent} times"), &user, used).await;
        }
        edge.assert_all_is_settled().await;
    }
}

/// Envoy asks about each pass, and each ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_envoy_redirects_is_a_hold_for_each_pass() {
    let policy = json!({ "max_internal_redirects": 1, "redirect_response_codes": [302] });
    let start = Edge::start_with(|envoy| {
        let route = configuration::routes(envoy).last_mut().unwrap();
        route["route"]["internal_redirect_policy"] = policy;
    });
    let Some(edge) = start.await else { return };
    for version in VERSIONS {
        let (user, before) = (edge.new_user(), edge.calls().await);
        let (settled, asked) = (edge.holds("settled"), edge.upstream.asked());
        let mut client = edge.client(version).await;
        assert_eq!(client.get("moved", &[("x-user", &user)]).await.0, 200, "{version:?}");
        assert_eq!(edge.upstream.asked() - asked, 2, "{version:?}");
        // The redirect says no cost.
        edge.until_settled("redirected", &user, ESTIMATE + COST).await;
        assert_eq!(edge.calls().await - before, 4, "{version:?}: one at each end of each");
        edge.until_holds("settled", settled + 4).await;
    }
    edge.assert_all_is_settled().await;
}
