//! Holds through the real Envoy: each request that it admits is settled once, however it ends.

pub mod configuration;
mod edge;
mod passes;
mod retried;
mod streams;
mod trailers;
mod two_filters;
mod unended;
mod upgraded;
mod upstream;

use std::time::Duration;

use tokio::task::JoinSet;

use self::edge::{COST, ESTIMATE, Edge, VERSIONS, Version};
use crate::support::engines;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_request_is_settled_once_by_its_cost() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        for path in ["ok", "stream"] {
            let (user, before) = (edge.new_user(), edge.calls().await);
            let settled = edge.holds("settled");
            let mut client = edge.client(version).await;
            let headers = [("x-user", &*user), ("x-max-tokens", "400")];
            assert_eq!(client.get(path, &headers).await.0, 200);
            edge.until_settled(path, &user, COST).await;
            assert_eq!(edge.calls().await - before, 2, "{version:?} {path}: one call at the end");
            // One of the slot and one of the tokens.
            edge.until_holds("settled", settled + 2).await;
        }
    }
    edge.assert_all_is_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_request_settles_nothing() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let mut client = edge.client(version).await;
        let ask = [("x-user", &*user), ("x-max-tokens", "500")];
        let mut holding = edge.client(version).await;
        let mut second = edge.client(version).await;
        // Two whose answers do not end hold all tokens.
        let first = holding.begin("begin", &ask).await.unwrap();
        let other = second.begin("begin", &ask).await.unwrap();
        let (before, reserved) = (edge.calls().await, edge.holds("reserved"));
        let (status, headers) = client.get("ok", &ask).await;
        assert_eq!(status, 429, "{headers:?}");
        assert_eq!(edge.holds("reserved"), reserved, "what is denied holds nothing");
        assert_eq!(edge.in_flight("user", &user).await, 2);
        assert!(edge.calls().await - before == 1, "{version:?}: nothing is said at the end");
        drop((first, other, holding, second));
        edge.until_settled("both have left", &user, 2 * COST).await;
    }
    edge.assert_all_is_settled().await;
}

/// The estimate is kept where the cost is not known, and the slot is free at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_whose_client_leaves_is_settled() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        for (path, used) in [("hang", ESTIMATE), ("begin", COST)] {
            let user = edge.new_user();
            let mut client = edge.client(version).await;
            let headers = [("x-user", &*user)];
            let asked = edge.upstream.asked();
            tokio::select! {
                // The headers of the one come, and its client leaves in the body.
                answer = client.begin(path, &headers) => assert_eq!(path, "begin", "{answer:?}"),
                () = edge.until_upstream_is_asked(asked), if path == "hang" => {}
            }
            drop(client);
            edge.until_settled(path, &user, used).await;
        }
    }
    edge.assert_all_is_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_fails_upstream_is_settled() {
    let Some(edge) = Edge::start().await else { return };
    let failures = [
        ("close", 503, ESTIMATE),
        ("503", 503, ESTIMATE),
        ("late", 504, ESTIMATE),
        ("cut", 200, COST),
    ];
    for version in VERSIONS {
        for (path, status, used) in failures {
            let user = edge.new_user();
            let mut client = edge.client(version).await;
            assert_eq!(client.get(path, &[("x-user", &user)]).await.0, status, "{path}");
            edge.until_settled(path, &user, used).await;
        }
    }
    edge.assert_all_is_settled().await;
}

/// With one slot a client in turn is never refused by its own last request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_in_turn_needs_one_slot() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let mut client = edge.client(version).await;
        for number in 0..300 {
            let (status, _) = client.get("ok", &[("x-turn", &user)]).await;
            assert_eq!(status, 200, "{version:?}: request {number}");
        }
    }
    // Two at a time do not pass.
    let user = edge.new_user();
    let mut holding = edge.client(Version::One).await;
    let _answer = holding.begin("begin", &[("x-turn", &user)]).await.unwrap();
    let (status, _) = edge.client(Version::One).await.get("ok", &[("x-turn", &user)]).await;
    assert_eq!(status, 429);
    drop(holding);
    edge.assert_all_is_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_that_leave_free_their_slots_at_once() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let mut answers = Vec::new();
        for _ in 0..50 {
            let mut client = edge.client(version).await;
            let answer = client.begin("begin", &[("x-user", &user)]).await.unwrap();
            answers.push((client, answer));
        }
        drop(answers);
        edge.until_settled("all have left", &user, 50 * COST).await;
    }
    edge.assert_all_is_settled().await;
}

/// Clients that leave at any moment, many while tollgate is asked. An answer that crosses on the
/// wire with the cancellation of its call keeps its slot until the ttl; all others are free at
/// once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_envoy_gives_up_keep_no_slots() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        for round in 0..4_u64 {
            let (user, reserved, calls) =
                (edge.new_user(), edge.holds("reserved"), edge.calls().await);
            let mut clients = JoinSet::new();
            for number in 0..50 {
                let (client, user) = (edge.client(version).await, user.clone());
                let path = ["hang", "begin", "stream"][number as usize % 3];
                let time = Duration::from_micros(number * 150 * round);
                let leaves =
                    async move { client.leave_after(time, path, &[("x-brief", &user)]).await };
                clients.spawn(leaves);
            }
            clients.join_all().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let answered = edge.holds("reserved") - reserved;
            let (left, asked) = (edge.in_flight("brief", &user).await, edge.calls().await - calls);
            assert!(
                left <= answered,
                "{version:?}: {left} in flight, {answered} of {asked} answered"
            );
            until("the last slots end", async || {
                (edge.in_flight("brief", &user).await == 0).then_some(())
            })
            .await;
        }
    }
    assert!(edge.holds("reserved") > 50, "most left before they were admitted");
    // lean answers a call where it reads it, before it can be given up; tests/wire has that case.
    if engines::named().as_deref() == Some("hyper") {
        assert!(edge.holds("self_settled") > 0, "answers that nobody took keep their slots");
    }
    edge.assert_nothing_was_bypassed().await;
}

/// The handle comes from Envoy's metadata alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_of_a_client_is_no_handle() {
    let Some(edge) = Edge::start().await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let named = [("x-user", &*user), ("hold", "AQAA"), ("x-hold", "AQAA")];
        assert_eq!(edge.client(version).await.get("ok", &named).await.0, 200);
        edge.until_settled("a header named hold", &user, COST).await;
        let in_turn = [("x-turn", &*user), ("hold", "AQAA")];
        let mut holding = edge.client(version).await;
        let _answer = holding.begin("begin", &in_turn).await.unwrap();
        let (status, _) = edge.client(version).await.get("ok", &in_turn).await;
        assert_eq!(status, 429, "it is limited as any other");
    }
    edge.assert_all_is_settled().await;
}
