//! Limits by remote address, API key and endpoint hold over both tollgates, whatever bytes a client sends.
//!
//! Where the shipped period is too short to count in, it is an hour here: what comes back meanwhile is then none.

use std::collections::BTreeMap;

use crate::stack::{Stack, metric_of};
use crate::support::caller::{Answer, Caller};
use crate::traffic::{ORDER, ORDERS, OTHER, PRICE, burst, statuses};

/// 100 requests of an address in an hour.
const ADDRESS_HOURLY: (&str, &str) = (
    "        unit: second\n        requests_per_unit: 100\n        algorithm: sliding_window\n",
    "        unit: hour\n        requests_per_unit: 100\n        algorithm: sliding_window\n",
);
/// 40 requests of a key at once, and one more each three minutes.
const KEY_HOURLY: (&str, &str) = (
    "      unit: second\n      requests_per_unit: 20\n      algorithm: token_bucket\n",
    "      unit: hour\n      requests_per_unit: 20\n      algorithm: token_bucket\n",
);
/// 5 requests in ten hours.
const FREE_HOURLY: (&str, &str) = (
    "      unit: second\n      unit_multiplier: 10\n      requests_per_unit: 5\n",
    "      unit: hour\n      unit_multiplier: 10\n      requests_per_unit: 5\n",
);
/// The store may take as long as Envoy waits: this is about numbers.
const PATIENT: &str = "store.deadline=1s";

/// The rest is 429, and as many passed as may; fewer only by calls that Envoy made twice and tollgate charged twice.
async fn assert_passed(stack: &Stack, answers: &[Answer], status: u16, limit: usize) {
    let mut counts = statuses(answers);
    let passed = counts.remove(&status).unwrap_or(0);
    let denied = counts.remove(&429).unwrap_or(0);
    assert!(counts.is_empty() && denied > 0, "{status}: {passed}, 429: {denied}, {counts:?}");
    let least = limit.saturating_sub(usize::try_from(stack.retried().await).unwrap());
    assert!((least..=limit).contains(&passed), "{passed} passed of {limit}");
    assert_eq!(stack.metric("tollgate_degraded_claims_total").await, 0, "decided without Redis");
}

async fn with_key(clients: &[Caller], requests: usize, key: &'static [u8]) -> Vec<Answer> {
    burst(requests, |number| {
        let client = clients[number % clients.len()].clone();
        async move { client.get_with(OTHER, "x-api-key", key).await }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_remote_address_has_a_limit_of_its_own() {
    let Some(stack) = Stack::start_with(&[ADDRESS_HOURLY], &[PATIENT]).await else { return };
    for host in [11, 12] {
        let client = stack.client(host);
        let answers = burst(130, |_| {
            let client = client.clone();
            // What the client says of itself changes nothing.
            async move { client.get_with(OTHER, "x-forwarded-for", b"203.0.113.9").await }
        })
        .await;
        assert_passed(&stack, &answers, 404, 100).await;
    }
    for tollgate in &stack.tollgates {
        let decided = metric_of(tollgate, "tollgate_requests_total").await;
        assert!(decided > 50, "{decided} of 260 were decided by one tollgate");
    }
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_api_key_has_a_limit_of_its_own_from_wherever_it_comes() {
    let Some(stack) = Stack::start_with(&[KEY_HOURLY, FREE_HOURLY], &[PATIENT]).await else {
        return;
    };
    let clients: Vec<_> = (11..=15).map(|host| stack.client(host)).collect();
    assert_passed(&stack, &with_key(&clients, 60, b"alice").await, 404, 40).await;
    assert_passed(&stack, &with_key(&clients, 60, b"bob").await, 404, 40).await;
    assert_passed(&stack, &with_key(&clients, 20, b"demo-free").await, 404, 5).await;
    let pro = with_key(&clients, 80, b"demo-pro").await;
    assert_eq!(statuses(&pro), BTreeMap::from([(404, 80)]), "more than a key without a rule has");
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_address_may_place_ten_orders_a_minute() {
    let Some(stack) = Stack::start_with(&[], &[PATIENT]).await else { return };
    for host in [11, 12] {
        let client = stack.client(host);
        let answers = burst(25, |number| {
            let client = client.clone();
            // Other spellings of the path are the same endpoint.
            let path = [ORDERS, "/api//v1/orders", "/api/v1/x/../orders"][number % 3];
            async move { client.post(path, ORDER).await }
        })
        .await;
        assert_passed(&stack, &answers, 201, 10).await;
        assert_eq!(client.get(PRICE).await.unwrap().status, 200, "prices are another endpoint");
    }
    for tollgate in &stack.tollgates {
        assert!(metric_of(tollgate, "tollgate_requests_total").await > 0);
    }
    stack.assert_nothing_was_bypassed().await;
}

static LONG: [u8; 8_192] = [b'k'; 8_192];
static TOO_LONG: [u8; 8_193] = [b'k'; 8_193];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_not_text_or_very_long_are_limited_like_others() {
    let Some(stack) = Stack::start_with(&[KEY_HOURLY], &[PATIENT]).await else { return };
    let clients: Vec<_> = (11..=15).map(|host| stack.client(host)).collect();
    for key in [&b"\xff"[..], b"\xff\xfe", &LONG] {
        assert_passed(&stack, &with_key(&clients, 50, key).await, 404, 40).await;
    }
    let refused = with_key(&clients, 3, &TOO_LONG).await;
    assert_eq!(statuses(&refused), BTreeMap::from([(429, 3)]), "longer than any value may be");
    let line = stack.envoy.logged("the key is escaped in the log", |line| {
        line["code"] == 429 && line["tollgate"].to_string().contains("api_key=%FF\"")
    });
    line.await;
    stack.assert_nothing_was_bypassed().await;
}
