//! Two rate limit filters, with a domain and a namespace of their own or with one for both.

use std::time::Instant;

use serde_json::{Value, json};

use super::configuration::{self, NAMESPACE};
use super::edge::{COST, ESTIMATE, Edge, POLICY, VERSIONS, Version};
use crate::support::operator::Operator;

/// The headers of the descriptors of the first filter, and those of the second.
const FIRST: &str = "x-";
const SECOND: &str = "x-second-";

/// The shipped filter asks about the domain edge, the one behind it about the domain second.
async fn start(namespace: &str) -> Option<Edge> {
    let edge = Edge::start_with(|envoy| add_second(envoy, "second", namespace, SECOND)).await?;
    let second = POLICY.replace("domain: edge", "domain: second");
    Operator::of(&edge.tollgate).await.apply(&second).await;
    Some(edge)
}

/// Both filters ask about the domain edge and use one namespace. The second takes its descriptors
/// from headers that begin like this.
async fn start_alike(prefix: &str) -> Option<Edge> {
    Edge::start_with(|envoy| add_second(envoy, "edge", NAMESPACE, prefix)).await
}

fn add_second(envoy: &mut Value, domain: &str, namespace: &str, prefix: &str) {
    let filters = configuration::filters(envoy);
    let mut second = filters[0].clone();
    second["name"] = json!("second");
    let filter = &mut second["typed_config"];
    filter["domain"] = json!(domain);
    filter["metadata_namespace"] = json!(namespace);
    filter["rate_limits"] = configuration::rate_limits(namespace, prefix, "%RESP(x-tokens)%");
    filters.insert(1, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_both_admit_is_settled_in_both() {
    let Some(edge) = start("tollgate.second").await else { return };
    for version in VERSIONS {
        let (user, before) = (edge.new_user(), edge.calls().await);
        let settled = edge.holds("settled");
        let both = [("x-user", &*user), ("x-second-user", &*user)];
        assert_eq!(edge.client(version).await.get("ok", &both).await.0, 200);
        for domain in ["edge", "second"] {
            edge.until_settled_in(domain, domain, &user, COST).await;
        }
        assert_eq!(edge.calls().await - before, 4, "{version:?}: one at each end of each");
        // A slot and tokens of each.
        edge.until_holds("settled", settled + 4).await;
    }
    edge.assert_all_is_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_the_first_denies_holds_nothing_in_the_second() {
    let Some(edge) = start("tollgate.second").await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let mut holding = edge.client(version).await;
        let answer = holding.begin("begin", &[("x-turn", &user)]).await.unwrap();
        let (before, reserved) = (edge.calls().await, edge.holds("reserved"));
        let both = [("x-turn", &*user), ("x-second-user", &*user)];
        assert_eq!(edge.client(version).await.get("ok", &both).await.0, 429);
        assert_eq!(edge.calls().await - before, 1, "{version:?}: the second is not asked");
        assert_eq!(edge.holds("reserved"), reserved, "{version:?}");
        assert_eq!(edge.taken("second", &user).await, (0, 0), "{version:?}");
        drop((answer, holding));
        edge.assert_all_is_settled().await;
    }
}

/// The request never ran, so it costs nothing, and says so itself: no upstream was tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_the_second_denies_costs_nothing_in_the_first() {
    let Some(edge) = start("tollgate.second").await else { return };
    for version in VERSIONS {
        let user = edge.new_user();
        let mut holding = edge.client(version).await;
        let answer = holding.begin("begin", &[("x-second-turn", &user)]).await.unwrap();
        let (asked, settled) = (edge.upstream.asked(), edge.holds("settled"));
        let both = [("x-user", &*user), ("x-second-turn", &*user)];
        assert_eq!(edge.client(version).await.get("ok", &both).await.0, 429);
        edge.until_settled("the second denies", &user, 0).await;
        // What the first has held.
        edge.until_holds("settled", settled + 2).await;
        assert_eq!(edge.upstream.asked(), asked, "{version:?}: it never ran");
        drop((answer, holding));
        edge.assert_all_is_settled().await;
    }
}

/// The handle of the second is in the place of that of the first, which then settles nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_in_one_namespace_keep_the_holds_of_the_first() {
    let Some(edge) = start(NAMESPACE).await else { return };
    let (user, began) = (edge.new_user(), Instant::now());
    let headers = ["x-user", "x-turn", "x-brief", "x-second-user", "x-second-turn"];
    let both = headers.map(|header| (header, &*user));
    let mut client = edge.client(Version::Two).await;
    assert_eq!(client.get("ok", &both).await.0, 200);
    edge.until_settled_in("second", "its handle is there", &user, COST).await;
    // Two slots and the tokens.
    edge.until_holds("settled", 3).await;
    // The first brings a handle of the second.
    edge.until_holds("invalid", 1).await;
    assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE), "nothing is given back");
    assert_eq!(client.get("ok", &[("x-turn", &user)]).await.0, 429, "never more is admitted");
    let in_turn = [("x-second-turn", &*user)];
    assert_eq!(client.get("ok", &in_turn).await.0, 200, "that of the second is settled");
    edge.until_brief_slot_ends(&user, began).await;
    assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE), "the others last");
    edge.assert_nothing_was_bypassed().await;
}

/// The handle of the second is good for the domain, but not for the counters of the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_of_one_domain_in_one_namespace_keep_the_holds_of_the_first() {
    let Some(edge) = start_alike(SECOND).await else { return };
    let (first, second, began) = (edge.new_user(), edge.new_user(), Instant::now());
    let of_first = ["x-user", "x-turn", "x-brief"].map(|header| (header, &*first));
    let of_second = ["x-second-user", "x-second-turn"].map(|header| (header, &*second));
    let mut client = edge.client(Version::Two).await;
    let both = [&of_first[..], &of_second].concat();
    assert_eq!(client.get("ok", &both).await.0, 200);
    edge.until_settled("its handle is there", &second, COST).await;
    // Two slots and the tokens.
    edge.until_holds("settled", 3).await;
    // Three slots and the tokens.
    edge.until_holds("unmatched", 4).await;
    assert_eq!(edge.taken("edge", &first).await, (1, ESTIMATE), "nothing is given back");
    assert_eq!(client.get("ok", &[("x-turn", &first)]).await.0, 429, "never more is admitted");
    let in_turn = [("x-second-turn", &*second)];
    assert_eq!(client.get("ok", &in_turn).await.0, 200, "that of the second is settled");
    edge.until_brief_slot_ends(&first, began).await;
    assert_eq!(edge.taken("edge", &first).await, (1, ESTIMATE), "the others last");
    assert_eq!(edge.holds("invalid"), 0);
    edge.assert_nothing_was_bypassed().await;
}

/// Both filters charge the same counters, and both bring the handle of the second: it is settled
/// once, whichever comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_that_ask_the_same_in_one_namespace_settle_one_hold_once() {
    let Some(edge) = start_alike(FIRST).await else { return };
    let (user, began) = (edge.new_user(), Instant::now());
    let before = edge.calls().await;
    let headers = ["x-user", "x-brief"].map(|header| (header, &*user));
    let mut client = edge.client(Version::Two).await;
    assert_eq!(client.get("ok", &headers).await.0, 200);
    // Two slots and the tokens.
    edge.until_holds("settled", 3).await;
    edge.until_holds("again", 3).await;
    assert_eq!(edge.holds("reserved"), 6, "each filter has held");
    assert_eq!(edge.calls().await - before, 4, "one at each end of each");
    assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE + COST), "the first keeps its own");
    edge.until_brief_slot_ends(&user, began).await;
    assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE + COST), "the others last");
    // With one slot the second is denied what the first has taken. Then the handle of the first is
    // still there, and both bring it. The request costs nothing.
    let denied = edge.new_user();
    let headers = ["x-user", "x-turn"].map(|header| (header, &*denied));
    assert_eq!(client.get("ok", &headers).await.0, 429);
    edge.until_settled("the second denies", &denied, 0).await;
    edge.until_holds("settled", 6).await;
    edge.until_holds("again", 6).await;
    for state in ["invalid", "unmatched", "late"] {
        assert_eq!(edge.holds(state), 0, "{state}");
    }
    edge.assert_nothing_was_bypassed().await;
}
