//! Requests that nobody should send get a decision: never an error, a bypass or a crash.

use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::Channel;

use crate::support::grpc::{ask, codes};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, descriptor, entry, request};

const POLICIES: &str = "
domain: d
descriptors:
  - {key: a, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: a_b, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: big, rate_limit: {unit: hour, requests_per_unit: 4294967295}}
  - {key: bucket, rate_limit: {unit: hour, requests_per_unit: 2, algorithm: token_bucket}}
  - key: hour_and_day
    rate_limits:
      - {unit: hour, requests_per_unit: 5}
      - {unit: day, requests_per_unit: 3}
";

/// Runs `check` against a tollgate on each store.
async fn on_both_stores<F: AsyncFn(&mut RateLimitServiceClient<Channel>)>(check: F) {
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies.yaml");
    std::fs::write(&policies, POLICIES).unwrap();
    let memory = Options::default().policies(&policies).start();
    alive_after(&memory, &check).await;
    let Some(redis) = RedisServer::start() else { return };
    let shared = Options::default().policies(&policies).redis(redis.url());
    let shared = shared.set("store.deadline=5s").set("store.on_failure=deny").start();
    alive_after(&shared, &check).await;
}

async fn alive_after<F: AsyncFn(&mut RateLimitServiceClient<Channel>)>(
    tollgate: &Tollgate,
    check: &F,
) {
    let mut client = tollgate.client().await;
    check(&mut client).await;
    let last = request("d", &[&[("a", "still alive")]]);
    assert_eq!(ask(&mut client, last).await.overall_code(), Code::Ok);
    let bad: Vec<String> = tollgate
        .log()
        .into_iter()
        .filter(|line| line.contains("panic") || line.contains("ERROR"))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

fn raw(key: &[u8], value: &[u8]) -> pb::RateLimitRequest {
    let mut request = request("d", &[&[]]);
    request.descriptors[0].entries = vec![entry(key, value)];
    request
}

const TWO_PASS: [Code; 3] = [Code::Ok, Code::Ok, Code::OverLimit];

#[tokio::test]
async fn any_bytes_in_a_value_are_limited_like_others() {
    on_both_stores(async |client| {
        let long = vec![b'x'; 8_192];
        let values: [&[u8]; 9] = [
            b"\xff",
            b"\xff\xfe\x00",
            b"",
            b"b_c",
            b"b|c=d",
            b"}{",
            b"a\r\nb: c",
            b"\xf0\x9f\xa6\x80",
            &long,
        ];
        for value in values {
            let asked = raw(b"a", value);
            assert_eq!(codes(client, &asked, 3).await, TWO_PASS, "{}", value.escape_ascii());
        }
        assert_eq!(codes(client, &raw(b"\xff", b"\xff"), 3).await, [Code::Ok; 3], "no such rule");
        let mut domain = raw(b"a", b"x");
        domain.domain = b"\xff".to_vec().into();
        assert_eq!(codes(client, &domain, 3).await, [Code::Ok; 3], "no such domain");
    })
    .await;
}

#[tokio::test]
async fn what_is_joined_alike_is_counted_apart() {
    on_both_stores(async |client| {
        assert_eq!(codes(client, &raw(b"a", b"b_c"), 3).await, TWO_PASS);
        assert_eq!(codes(client, &raw(b"a_b", b"c"), 3).await, TWO_PASS);
    })
    .await;
}

#[tokio::test]
async fn hour_and_day_of_one_descriptor_are_counted_apart() {
    on_both_stores(async |client| {
        let asked = raw(b"hour_and_day", b"v");
        let mut left = Vec::new();
        for _ in 0..3 {
            left.push(ask(client, asked.clone()).await.statuses[0].limit_remaining);
        }
        assert_eq!(left, [2, 1, 0], "the day's limit is the tighter one");
        let denied = ask(client, asked).await;
        assert_eq!(denied.overall_code(), Code::OverLimit);
        assert_eq!(denied.statuses[0].current_limit.as_ref().unwrap().requests_per_unit, 3);
    })
    .await;
}

#[tokio::test]
async fn override_that_cannot_be_understood_never_opens_the_gate() {
    on_both_stores(async |client| {
        for (i, (unit, unit_multiplier)) in [
            (0, None),
            (99, None),
            (-1, None),
            (i32::MAX, None),
            (1, Some(0)),
            (6, Some(11)),
            (4, Some(u32::MAX)),
        ]
        .into_iter()
        .enumerate()
        {
            let value = format!("override {i}");
            let limit =
                Some(RateLimitOverride { requests_per_unit: 1_000_000, unit, unit_multiplier });
            let mut matched = raw(b"a", value.as_bytes());
            matched.descriptors[0].limit = limit;
            assert_eq!(codes(client, &matched, 3).await, TWO_PASS, "the rule holds: unit {unit}");
            let mut unmatched = raw(b"nothing", value.as_bytes());
            unmatched.descriptors[0].limit = limit;
            assert_eq!(codes(client, &unmatched, 1).await, [Code::OverLimit], "unit {unit}");
        }
        let week =
            Some(RateLimitOverride { requests_per_unit: 1, unit: 7, unit_multiplier: Some(2) });
        let mut asked = raw(b"nothing", b"week");
        asked.descriptors[0].limit = week;
        assert_eq!(codes(client, &asked, 2).await, [Code::Ok, Code::OverLimit]);
    })
    .await;
}

#[tokio::test]
async fn hits_of_any_size_have_an_answer() {
    on_both_stores(async |client| {
        let with = |key: &[u8], request_hits: u32, hits: Option<u64>| {
            let mut asked = raw(key, b"hits");
            asked.hits_addend = request_hits;
            asked.descriptors[0].hits_addend = hits;
            asked
        };
        for key in [b"a".as_slice(), b"bucket"] {
            for hits in [3, u64::from(u32::MAX), 1 << 53, 1 << 63, u64::MAX] {
                let over = ask(client, with(key, 0, Some(hits))).await;
                assert_eq!(over.overall_code(), Code::OverLimit, "{hits}");
            }
            assert_eq!(codes(client, &with(key, u32::MAX, None), 1).await, [Code::OverLimit]);
            // A peek charges nothing, however often; 0 at the request is one hit.
            assert_eq!(codes(client, &with(key, 0, Some(0)), 3).await, [Code::Ok; 3]);
            assert_eq!(codes(client, &with(key, 0, None), 3).await, TWO_PASS);
            assert_eq!(codes(client, &with(key, 0, Some(0)), 1).await, [Code::OverLimit]);
            let mut refund = with(key, 0, Some(u64::MAX));
            refund.descriptors[0].is_negative_hits = true;
            let refunded = ask(client, refund).await;
            assert_eq!(
                (refunded.overall_code(), refunded.statuses[0].limit_remaining),
                (Code::Ok, 2)
            );
        }
        let all = with(b"big", u32::MAX, None);
        assert_eq!(codes(client, &all, 2).await, [Code::Ok, Code::OverLimit]);
    })
    .await;
}

#[tokio::test]
async fn same_descriptor_twice_is_charged_in_order() {
    on_both_stores(async |client| {
        let twice = request("d", &[&[("a", "twice")], &[("a", "twice")]]);
        let answer = ask(client, twice.clone()).await;
        let left: Vec<u32> = answer.statuses.iter().map(|status| status.limit_remaining).collect();
        assert_eq!(left, [1, 0]);
        assert_eq!(ask(client, twice).await.overall_code(), Code::OverLimit);
    })
    .await;
}

#[tokio::test]
async fn hundred_descriptors_are_decided_together() {
    on_both_stores(async |client| {
        let mut asked = request("d", &[]);
        asked.descriptors = (0..100).map(|i| descriptor(&[("a", &format!("many {i}"))])).collect();
        for (expected, left) in [(Code::Ok, 1), (Code::Ok, 0), (Code::OverLimit, 0)] {
            let answer = ask(client, asked.clone()).await;
            assert_eq!(answer.overall_code(), expected);
            assert_eq!(answer.statuses.len(), 100);
            assert!(answer.statuses.iter().all(|status| status.limit_remaining == left));
        }
    })
    .await;
}

#[tokio::test]
async fn request_beyond_the_bounds_is_over_its_limit() {
    on_both_stores(async |client| {
        let mut many = request("d", &[]);
        many.descriptors = (0..129).map(|i| descriptor(&[("a", &i.to_string())])).collect();
        let mut wide = request("d", &[&[]]);
        wide.descriptors[0].entries = (0..17).map(|_| entry(b"a", b"v")).collect();
        let long_key = raw(&[b'k'; 1_025], b"v");
        let long_value = raw(b"a", &[b'v'; 8_193]);
        let mut long_domain = raw(b"a", b"v");
        long_domain.domain = vec![b'd'; 1_025].into();
        let mut huge = request("d", &[]);
        huge.descriptors =
            (0..12).map(|_| raw(b"a", &[b'v'; 8_000]).descriptors.remove(0)).collect();
        for asked in [many, wide, long_key, long_value, long_domain, huge] {
            assert_eq!(ask(client, asked).await.overall_code(), Code::OverLimit);
        }
    })
    .await;
}

#[tokio::test]
async fn only_a_missing_domain_or_descriptor_list_is_an_error() {
    on_both_stores(async |client| {
        for (asked, field) in
            [(request("", &[&[("a", "v")]]), "domain"), (request("d", &[]), "descriptors")]
        {
            let status = client.should_rate_limit(asked).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(field), "{}", status.message());
        }
        assert_eq!(
            codes(client, &request("d", &[&[]]), 1).await,
            [Code::Ok],
            "no entries: no limit"
        );
    })
    .await;
}

#[tokio::test]
async fn timeout_beyond_any_clock_is_none() {
    on_both_stores(async |client| {
        for timeout in ["18446744073709551615H", "18446744073709551615S", "99999999H"] {
            let mut asked = tonic::Request::new(request("d", &[&[("big", "v")]]));
            asked.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            let answer = client.should_rate_limit(asked).await.unwrap().into_inner();
            assert_eq!(answer.overall_code(), Code::Ok, "{timeout}");
        }
    })
    .await;
}
