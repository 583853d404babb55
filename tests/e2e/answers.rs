//! What clients and operators are told: headers, when to come back, the access log, and how soon an edit of the
//! policies shows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stack::Stack;
use crate::support::caller::{Answer, Caller};
use crate::traffic::{ORDER, ORDERS, PRICE};

/// None of this is about an outage: a busy machine shall not look like one.
const PATIENT: &str = "store.deadline=1s";

async fn free(client: &Caller) -> Answer {
    client.get_with(PRICE, "x-api-key", b"demo-free").await.unwrap()
}

/// The descriptor in the line's metadata that has entries of this key first.
fn descriptor<'a>(line: &'a Value, key: &str) -> &'a Value {
    let descriptors = line["tollgate"]["descriptors"].as_array().unwrap();
    let first =
        |found: &&Value| found["entries"][0].as_str().unwrap().split_once('=').unwrap().0 == key;
    descriptors.iter().find(first).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_when_the_request_passes_and_headers_count_down_to_it() {
    let Some(stack) = Stack::start_with(&[], &[PATIENT]).await else { return };
    let client = stack.client(11);
    for left in (0..5).rev() {
        let answer = free(&client).await;
        assert_eq!((answer.status, answer.number("x-ratelimit-remaining")), (200, left));
        let limits = answer.header("x-ratelimit-limit").unwrap();
        assert!(limits.starts_with("5, "), "the tightest first: {limits}");
        assert!(limits.contains(r#"5;w=10;name="key-free""#), "{limits}");
        assert!((1..=10).contains(&answer.number("x-ratelimit-reset")));
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("x-envoy-ratelimited"), None);
    }
    let denied = free(&client).await;
    let retry_after = denied.number("retry-after");
    assert_eq!((denied.status, denied.header("x-envoy-ratelimited")), (429, Some("true")));
    assert_eq!(denied.number("x-ratelimit-remaining"), 0);
    assert_eq!(denied.number("x-ratelimit-reset"), retry_after);
    assert!((1..=10).contains(&retry_after), "{retry_after}");
    assert_eq!(denied.header("x-instance"), None, "no backend saw it");

    // The header rounds up to seconds; the log has milliseconds.
    let line = stack.envoy.logged("the denied request", |line| line["code"] == 429).await;
    let exact = descriptor(&line, "api_key")["retry_after_ms"].as_f64().unwrap();
    assert_eq!(retry_after, (exact / 1_000.0).ceil() as u64);
    let earliest = denied.sent + Duration::from_secs_f64((exact - 1.0) / 1_000.0);
    let promised = denied.answered + Duration::from_secs(retry_after);
    // Asked some times on the way there: each answer before its time is a denial.
    let mut early = 0;
    for before in [3_000, 1_000, 500, 200, 100, 50] {
        let left = earliest.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.saturating_sub(Duration::from_millis(before))).await;
        let answer = free(&client).await;
        if answer.answered < earliest {
            assert_eq!(answer.status, 429, "{:?} early", earliest - answer.answered);
            early += 1;
        }
    }
    assert!(early > 0, "every answer came too late to tell");
    tokio::time::sleep_until(promised.into()).await;
    assert_eq!(free(&client).await.status, 200, "after {retry_after} s");
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_says_which_rule_limited_the_request() {
    let Some(stack) = Stack::start_with(&[], &[PATIENT]).await else { return };
    let client = stack.client(11);
    for _ in 0..11 {
        client.post(ORDERS, ORDER).await.unwrap();
    }
    for _ in 0..6 {
        free(&client).await;
    }

    let log = &stack.envoy;
    let order =
        log.logged("a limited order", |line| line["code"] == 429 && line["method"] == "POST");
    let order = order.await;
    let expected = json!({
        "path": "/api/v1/orders",
        "details": "request_rate_limited",
        "flags": "RL",
        "client": "127.0.0.11",
        "endpoint": "orders",
        "ratelimited": "true",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&order[field], value, "{field} in {order}");
    }
    assert_eq!(order["tollgate"]["domain"], "edge");
    let endpoint = descriptor(&order, "endpoint");
    assert_eq!(endpoint["limits_over"], json!(["orders-per-address"]), "{order}");
    assert_eq!(
        endpoint["entries"],
        json!(["endpoint=orders", "method=POST", "remote_address=127.0.0.11"])
    );
    assert_eq!(descriptor(&order, "remote_address")["limits_over"], Value::Null);

    let keyed = log.logged("a limited key", |line| line["code"] == 429 && line["method"] == "GET");
    let keyed = keyed.await;
    assert_eq!(descriptor(&keyed, "api_key")["limits_over"], json!(["key-free"]), "{keyed}");
    let passed = log.logged("an order", |line| line["code"] == 201).await;
    assert_eq!(descriptor(&passed, "endpoint")["over_limit"], Value::Null, "{passed}");
    for (line, rule) in [(&order, "endpoint"), (&keyed, "api_key"), (&passed, "endpoint")] {
        assert!(descriptor(line, rule)["rule"].as_str().unwrap().starts_with(rule), "{line}");
    }
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_of_the_policies_takes_effect_within_a_second() {
    let Some(stack) = Stack::start_with(&[], &[PATIENT]).await else { return };
    let client = stack.client(11);
    for left in (7..10).rev() {
        let placed = client.post(ORDERS, ORDER).await.unwrap();
        assert_eq!((placed.status, placed.number("x-ratelimit-remaining")), (201, left));
    }
    let name = "              name: orders-per-address\n              unit: minute\n";
    let limit = |requests: u32| format!("{name}              requests_per_unit: {requests}\n");
    let edited = Instant::now();
    stack.edit_policies((&limit(10), &limit(60)));
    // One connection, so one worker of Envoy, which asks both tollgates in turn: the edit is in force when no answer is
    // of the old limit any more.
    let (mut placed, mut left) = (3, 0);
    let (mut run, mut took) = (0, Duration::ZERO);
    while run < 6 {
        let answer = client.post(ORDERS, ORDER).await.unwrap();
        placed += u64::from(answer.status == 201);
        let limits = answer.header("x-ratelimit-limit").unwrap();
        if limits.contains(r#"60;w=60;name="orders-per-address""#) {
            (run, left) = (run + 1, answer.number("x-ratelimit-remaining"));
        } else {
            assert!(limits.contains(r#"10;w=60;name="orders-per-address""#), "{limits}");
            (run, took) = (0, edited.elapsed());
        }
        assert!(took < Duration::from_secs(1), "the old limit holds after {took:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let least = 60 - placed - stack.retried().await;
    assert!((least..=60 - placed).contains(&left), "{left} left after {placed}: counts are kept");
    stack.assert_nothing_was_bypassed().await;
}
