//! Holds over the real binary: an estimate at admission, the cost once, and slots that are
//! released; on both stores.

use std::time::{Duration, Instant};

use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code::{self, Ok as OK, OverLimit as OVER};

use crate::stores::each_store;
use crate::support::grpc::{Client, ask, metadata};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, descriptor};

const POLICY: &str = "
domain: llm
descriptors:
  - key: user
    rate_limits:
      - {name: tokens, algorithm: fixed_window, unit: day, requests_per_unit: 20,
         hold: {ttl: 1m, estimate: {default: 4, max: 10}}}
      - {name: calls, unit: day, requests_per_unit: 1000, cost: 1}
  - key: free
    rate_limit: {algorithm: fixed_window, unit: day, requests_per_unit: 20,
                 hold: {estimate: {default: 4}, on_unknown: release}}
  - key: job
    rate_limit: {name: jobs, algorithm: concurrency, max: 2, ttl: 1s}
";

/// A descriptor: its entry, further ones, and the hits that it states.
type Asked<'a> = (&'a [(&'a str, &'a str)], Option<u64>);

fn request(asked: &[Asked<'_>]) -> pb::RateLimitRequest {
    let descriptor = |(entries, hits): &Asked<'_>| pb::RateLimitDescriptor {
        hits_addend: *hits,
        ..descriptor(entries)
    };
    pb::RateLimitRequest {
        domain: b"llm".to_vec().into(),
        descriptors: asked.iter().map(descriptor).collect(),
        hits_addend: 0,
    }
}

/// An answer: its code, the hits left of the first descriptor, and the handle.
async fn asked(client: &mut Client, descriptors: &[Asked<'_>]) -> (Code, u32, Option<String>) {
    let response = ask(client, request(descriptors)).await;
    let handle = metadata(&response)["hold"].as_str().map(str::to_owned);
    (response.overall_code(), response.statuses[0].limit_remaining, handle)
}

fn count(tollgate: &Tollgate, state: &str) -> u64 {
    let text = http::get(tollgate.at.http, "/metrics").body;
    let series = format!("tollgate_holds_total{{state=\"{state}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

/// Waits until so many settlements have reached the store.
fn settled(tollgate: &Tollgate, state: &str, times: u64) {
    let begun = Instant::now();
    while count(tollgate, state) < times {
        assert!(begun.elapsed() < Duration::from_secs(10), "{state}: {}", count(tollgate, state));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn estimate_is_taken_and_the_cost_is_settled_once() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut client = tollgate.client().await;
        let user = &[("user", "ann")][..];
        let (code, left, handle) = asked(&mut client, &[(user, None)]).await;
        assert_eq!((code, left), (OK, 16), "the default of the rule is held");
        let handle = handle.unwrap();
        let ended = &[("user", "ann"), ("hold", &handle)][..];
        for _ in 0..3 {
            // As Envoy sends it: with the cost if it is known, and without.
            let (code, ..) = asked(&mut client, &[(ended, Some(1)), (ended, None)]).await;
            assert_eq!(code, OK);
        }
        settled(&tollgate, "again", 2);
        assert_eq!(asked(&mut client, &[(user, Some(5))]).await.1, 14, "1 and 5 of 20");
        let (code, left, second) = asked(&mut client, &[(user, Some(50)), (user, None)]).await;
        assert_eq!((code, left), (OK, 4), "at most 10, and once for both descriptors");
        let second = second.unwrap();
        let ended = &[("user", "ann"), ("hold", &second)][..];
        asked(&mut client, &[(ended, Some(13))]).await;
        settled(&tollgate, "settled", 2);
        assert_eq!(asked(&mut client, &[(user, None)]).await.0, OVER, "19 of 20, and 4 do not fit");
        assert_eq!(
            asked(&mut client, &[(user, None)]).await.2,
            None,
            "what is denied holds nothing"
        );
        let (code, left, _) = asked(&mut client, &[(user, Some(1))]).await;
        assert_eq!((code, left), (OK, 0));
    }
}

/// A denial is remembered for a second, but not beyond a settlement that makes room.
#[tokio::test]
async fn denied_caller_passes_as_soon_as_a_hold_is_settled() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut client = tollgate.client().await;
        let user = ("user", "ann");
        let handle = asked(&mut client, &[(&[user], Some(10))]).await.2.unwrap();
        assert_eq!(asked(&mut client, &[(&[user], Some(8))]).await.0, OK);
        for _ in 0..3 {
            assert_eq!(asked(&mut client, &[(&[user], None)]).await.0, OVER, "18 of 20");
        }
        asked(&mut client, &[(&[user, ("hold", &handle)], Some(1))]).await;
        let (code, left, _) = asked(&mut client, &[(&[user], None)]).await;
        assert_eq!((code, left), (OK, 7));
    }
}

#[tokio::test]
async fn cost_that_is_not_said_is_that_of_the_rule() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut client = tollgate.client().await;
        for (key, left) in [("user", 12), ("free", 16)] {
            let entry = (key, "ann");
            let (_, _, handle) = asked(&mut client, &[(&[entry], None)]).await;
            let handle = handle.unwrap();
            asked(&mut client, &[(&[entry, ("hold", &handle)], None)]).await;
            // It answers at once, and is ahead of the next decision.
            assert_eq!(asked(&mut client, &[(&[entry], None)]).await.1, left, "{key}");
        }
        assert_eq!(count(&tollgate, "unknown_cost"), 2);
    }
}

#[tokio::test]
async fn request_that_never_ran_costs_nothing() {
    let tollgate = Options::serving(POLICY).start();
    let mut client = tollgate.client().await;
    let user = ("user", "ann");
    for (report, left) in [("attempts", 19), ("sent", 18)] {
        let handle = asked(&mut client, &[(&[user], Some(7))]).await.2.unwrap();
        let hold = ("hold", &*handle);
        asked(&mut client, &[(&[user, hold], None), (&[("report", report), hold], Some(0))]).await;
        assert_eq!(asked(&mut client, &[(&[user], Some(1))]).await.1, left, "{report}");
    }
}

#[tokio::test]
async fn handle_that_is_not_good_is_over_its_limit_and_changes_nothing() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut client = tollgate.client().await;
        let user = ("user", "ann");
        let handle = asked(&mut client, &[(&[user], None)]).await.2.unwrap();
        let mut forged = handle.clone().into_bytes();
        forged[20] ^= 1;
        let forged = String::from_utf8(forged).unwrap();
        for bad in ["", "x", &forged, &handle[..handle.len() - 1], &"A".repeat(9_000)] {
            let response = ask(&mut client, request(&[(&[user, ("hold", bad)], Some(0))])).await;
            assert_eq!(response.overall_code(), OVER, "{bad}");
        }
        let response = ask(&mut client, request(&[(&[user, ("hold", "x")], Some(0))])).await;
        assert_eq!(metadata(&response)["descriptors"][0]["reason"], "invalid_hold");
        // It charges nothing for the other descriptors of its request, either.
        let other = ("user", "eve");
        let mixed = [(&[other][..], None), (&[user, ("hold", "x")][..], Some(0))];
        let (code, _, held) = asked(&mut client, &mixed).await;
        assert_eq!((code, held), (OVER, None));
        assert_eq!(asked(&mut client, &[(&[other], Some(1))]).await.1, 19, "1 of 20");
        // Of another user the handle says nothing.
        let (code, ..) =
            asked(&mut client, &[(&[("user", "bob"), ("hold", &handle)], Some(0))]).await;
        assert_eq!((code, count(&tollgate, "unmatched")), (OK, 1));
        assert_eq!(asked(&mut client, &[(&[user], Some(1))]).await.1, 15, "4 and 1 of 20");
        assert_eq!(asked(&mut client, &[(&[("user", "bob")], Some(1))]).await.1, 19);
    }
}

#[tokio::test]
async fn slots_are_released_once_and_run_out() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut client = tollgate.client().await;
        let job = ("job", "x");
        let first = asked(&mut client, &[(&[job], None)]).await.2.unwrap();
        let second = asked(&mut client, &[(&[job], Some(70))]).await;
        assert_eq!((second.0, second.1), (OK, 0), "a slot, whatever the hits");
        let denied = ask(&mut client, request(&[(&[job], None)])).await;
        assert_eq!(denied.overall_code(), OVER);
        let limit = denied.statuses[0].current_limit.as_ref().unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit), (2, 0), "no unit: at a time");
        for _ in 0..2 {
            asked(&mut client, &[(&[job, ("hold", &first)], None)]).await;
        }
        assert_eq!(asked(&mut client, &[(&[job], None)]).await.0, OK, "one was released");
        assert_eq!(asked(&mut client, &[(&[job], None)]).await.0, OVER, "and only one");
        let begun = Instant::now();
        while asked(&mut client, &[(&[job], None)]).await.0 == OVER {
            assert!(begun.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Without a setting the first replica makes the secret, and all have it.
#[tokio::test]
async fn hold_is_settled_by_another_replica() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).start();
    let (one, other) = (start(), start());
    let (mut of_one, mut of_other) = (one.client().await, other.client().await);
    let user = ("user", "ann");
    for (left, cost) in [(16, 1), (15, 2)] {
        let (_, found, handle) = asked(&mut of_one, &[(&[user], None)]).await;
        assert_eq!(found, left);
        let handle = handle.unwrap();
        let ended = [(&[user, ("hold", &*handle)][..], Some(cost))];
        assert_eq!(asked(&mut of_other, &ended).await.0, OK);
        settled(&other, "settled", cost);
    }
    assert_eq!(asked(&mut of_other, &[(&[user], Some(1))]).await.1, 16, "1, 2 and 1 of 20");
}

/// A settlement that Redis does not take is sent again.
#[tokio::test]
async fn hold_is_settled_once_redis_is_back() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICY).redis(redis.url()).start();
    let mut client = tollgate.client().await;
    let user = ("user", "ann");
    let handle = asked(&mut client, &[(&[user], Some(10))]).await.2.unwrap();
    redis.pause();
    let ended = [(&[user, ("hold", &*handle)][..], Some(3))];
    assert_eq!(asked(&mut client, &ended).await.0, OK, "nobody waits for it");
    redis.resume();
    settled(&tollgate, "settled", 1);
    let begun = Instant::now();
    loop {
        let response = ask(&mut client, request(&[(&[user], Some(1))])).await;
        if !crate::support::grpc::is_degraded(&response) {
            assert_eq!(response.statuses[0].limit_remaining, 16, "3 and 1 of 20");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

/// Without the store the process remembers itself what it has settled.
#[tokio::test]
async fn hold_of_an_outage_is_settled_once() {
    let Some(mut redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICY).redis(redis.url()).start();
    redis.stop();
    let (mut client, user) = (tollgate.client().await, ("user", "ann"));
    let handle = asked(&mut client, &[(&[user], Some(10))]).await.2.unwrap();
    assert_eq!(asked(&mut client, &[(&[user], Some(10))]).await.1, 0, "all 20 are held");
    for _ in 0..3 {
        asked(&mut client, &[(&[user, ("hold", &handle)], Some(1))]).await;
    }
    assert_eq!(asked(&mut client, &[(&[user], Some(10))]).await.0, OVER, "11 are used");
    assert_eq!(asked(&mut client, &[(&[user], Some(9))]).await.1, 0);
}
