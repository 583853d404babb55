//! Requests that wait for their turn instead of being denied: what they are told, over both stores,
//! by a share, and where other descriptors deny or watch.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::tollgate::v1::ReserveRequest;
use tollgate::edge::pb::tollgate::v1::hold_service_client::HoldServiceClient;

use crate::support::grpc::{Client, ask, is_degraded, metadata, with_hits};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

/// A hit each two seconds, two at once, and as many that wait as ten seconds hold.
const POLICY: &str = "
domain: d
descriptors:
  - key: waits
    rate_limits:
      - {algorithm: token_bucket, unit: minute, requests_per_unit: 30, burst: 2, max_wait: 10s}
      - {algorithm: token_bucket, unit: hour, requests_per_unit: 900, burst: 3, max_wait: 8s}
  - {key: watched, shadow_mode: true, rate_limit: {algorithm: token_bucket, unit: minute, requests_per_unit: 30, burst: 1, max_wait: 10s}}
  - {key: one, rate_limit: {unit: day, requests_per_unit: 1}}
";

const HEADER: &str = "x-envoy-fault-delay-request";

fn options() -> Options {
    Options::serving(POLICY).set("store.deadline=5s")
}

fn one(key: &str) -> pb::RateLimitRequest {
    request("d", &[&[(key, "v")]])
}

/// The wait by an answer: its code, the header, and the metadata of the first descriptor, in
/// milliseconds.
#[derive(Debug, PartialEq)]
struct Told {
    code: Code,
    header: Option<u64>,
    metadata: Option<u64>,
}

fn told(answer: &pb::RateLimitResponse) -> Told {
    let headers = &answer.request_headers_to_add;
    assert!(headers.iter().all(|header| header.key == HEADER) && headers.len() <= 1, "{headers:?}");
    let millis = &metadata(answer)["descriptors"][0]["wait_ms"];
    Told {
        code: answer.overall_code(),
        header: headers.first().map(|header| header.value.parse().unwrap()),
        metadata: millis.as_f64().map(|millis| millis as u64),
    }
}

/// Asserts that an admitted request waits for up to these seconds, and a little less on a slow
/// machine.
#[track_caller]
fn assert_waits(answer: &pb::RateLimitResponse, seconds: u64) {
    let found = told(answer);
    let latest = seconds * 1_000;
    let waits = found.header.unwrap_or(0);
    assert!((latest.saturating_sub(1_900)..=latest).contains(&waits), "{found:?}, not {seconds} s");
    assert_eq!(found, Told { code: Code::Ok, header: found.header, metadata: found.header });
    if waits > 0 {
        assert_eq!(answer.statuses[0].limit_remaining, 0);
    }
}

async fn assert_turns(client: &mut Client) {
    // Of two limits the one that takes longer: the second has a hit in four seconds, three at once.
    for seconds in [0, 0, 2, 4, 8] {
        assert_waits(&ask(client, one("waits")).await, seconds);
    }
    let denied = ask(client, one("waits")).await;
    let nothing = |code| Told { code, header: None, metadata: None };
    assert_eq!(told(&denied), nothing(Code::OverLimit), "it would wait for 12 s, and may for 8");
    let retry = metadata(&denied)["descriptors"][0]["retry_after_ms"].as_f64().unwrap();
    assert!((2_000.0..=4_000.0).contains(&retry), "until it may wait: {retry}");
    let never = ask(client, with_hits(one("waits"), 3)).await;
    assert_eq!(told(&never), nothing(Code::OverLimit), "more than fit at once");
    assert_eq!(metadata(&never)["descriptors"][0].get("retry_after_ms"), None);
}

#[tokio::test]
async fn requests_wait_for_their_turn_by_both_stores() {
    let memory = options().start();
    assert_turns(&mut memory.client().await).await;
    let Some(redis) = RedisServer::start() else { return };
    let shared = options().redis(redis.url()).start();
    assert_turns(&mut shared.client().await).await;
    // A share of one replica waits as the limit does.
    drop(redis);
    let mut client = shared.client().await;
    let asked = request("d", &[&[("waits", "w")]]);
    let answer = ask(&mut client, asked.clone()).await;
    assert!(is_degraded(&answer), "{answer:?}");
    assert_waits(&answer, 0);
    assert_waits(&ask(&mut client, asked.clone()).await, 0);
    assert_waits(&ask(&mut client, asked).await, 2);
}

#[tokio::test]
async fn only_an_admitted_request_waits_and_not_for_a_shadowed_limit() {
    let tollgate = options().start();
    let mut client = tollgate.client().await;
    ask(&mut client, one("watched")).await;
    let watched = told(&ask(&mut client, one("watched")).await);
    assert_eq!((watched.code, watched.header), (Code::Ok, None));
    assert!(watched.metadata.unwrap() > 0, "it is reported: {watched:?}");

    ask(&mut client, with_hits(one("waits"), 2)).await;
    let both = request("d", &[&[("waits", "v")], &[("one", "v")]]);
    assert_waits(&ask(&mut client, both.clone()).await, 2);
    let denied = Told { code: Code::OverLimit, header: None, metadata: None };
    assert_eq!(told(&ask(&mut client, both).await), denied);
}

#[tokio::test]
async fn header_has_another_name_or_is_left_out_and_json_has_it_too() {
    let body = r#"{"domain":"d","descriptors":[{"entries":[{"key":"waits","value":"v"}]}]}"#;
    for (name, headers) in [("x-wait-ms", 1), ("", 0)] {
        let tollgate = options().set(format!("limits.delay_header={name}")).start();
        let asked = || http::post(tollgate.at.http, "/json", body).body;
        assert!(!asked().contains("requestHeadersToAdd") && !asked().contains("wait_ms"));
        let answer: Value = serde_json::from_str(&asked()).unwrap();
        let millis = answer["dynamicMetadata"]["descriptors"][0]["wait_ms"].as_f64().unwrap();
        assert!(Duration::from_millis(millis as u64) <= Duration::from_secs(2), "{millis}");
        let header = json!([{"key": name, "value": (millis as u64).to_string()}]);
        let found = answer.get("requestHeadersToAdd");
        assert_eq!(found, Some(&header).filter(|_| headers == 1));
    }
}

/// A caller without a proxy waits by itself.
#[tokio::test]
async fn reservation_says_how_long_to_wait() {
    let tollgate = options().start();
    let channel = Tollgate::channel(tollgate.at.grpc).await;
    let mut service = HoldServiceClient::new(channel);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let request = Some(one("waits"));
        let answer = service.reserve(ReserveRequest { request }).await.unwrap().into_inner();
        let response = answer.response.unwrap();
        assert_eq!(told(&response).header.unwrap_or(0), answer.wait_ms);
        waits.push(answer.wait_ms);
    }
    assert_eq!(waits[..2], [0, 0]);
    assert!((100..=2_000).contains(&waits[2]) && (2_000..=4_000).contains(&waits[3]), "{waits:?}");
}
