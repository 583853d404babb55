//! `GetTop` against exact counts of what a replica decided, by a clock that the test moves.

use std::collections::BTreeMap;

use tollgate::control::layered::Origin;
use tollgate::edge::admin::pb::get_top_request::Order;
use tollgate::edge::admin::pb::get_top_response::Row;
use tollgate::edge::admin::pb::{GetTopRequest, GetTopResponse, Limit, Unit};
use tollgate::edge::grpc::convert::from_pb;
use tollgate::limiter::key::SensitiveHasher;
use tollgate::policy::{Files, Source};
use tonic::{Code, Status};

use crate::replica::{Replica, World, client, code, per_minute, request};
use crate::traffic::{POLICY, Traffic};

/// The descriptor as text, the rule, and whether a client limits it.
type Name = (String, String, bool);

async fn list(replica: &Replica, request: GetTopRequest) -> Result<GetTopResponse, Status> {
    let answer = replica.policies.clone().get_top(request).await;
    answer.map(tonic::Response::into_inner)
}

const fn order(shadow: bool) -> i32 {
    if shadow { Order::Shadowed as i32 } else { Order::Limited as i32 }
}

async fn callers(replica: &Replica, shadow: bool) -> Vec<Row> {
    let all = GetTopRequest { page_size: 1_000, order: order(shadow), ..Default::default() };
    list(replica, all).await.unwrap().rows
}

fn name(caller: &Row) -> Name {
    let entries = caller.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value));
    (entries.collect::<Vec<_>>().join("|"), caller.rule.clone(), caller.client())
}

/// Names and counts, in order.
fn counts(callers: &[Row]) -> Vec<(String, u64)> {
    callers.iter().map(|caller| (name(caller).0, caller.count())).collect()
}

fn owned<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

async fn ask(replica: &Replica, key: &str, value: &str, times: usize) {
    for _ in 0..times {
        replica.decide(&request("edge", &[&[(key, value)]])).await;
    }
}

#[tokio::test]
async fn rank_agrees_with_the_decisions_a_thousand_times() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    let mut traffic = Traffic::quick(11);
    let mut exact = [BTreeMap::<Name, u64>::new(), BTreeMap::new()];
    let hasher = SensitiveHasher::new(b"key");
    for i in 0..1_000 {
        if traffic.random.chance(5) {
            here.upsert(vec![traffic.client()]).await.unwrap();
        }
        // The running minute has begun 20 seconds before the first request.
        world.advance(u64::from(i % 20 == 0));
        let request = traffic.request();
        let request = from_pb(&request).unwrap();
        let decision = here.decide(&request).await;
        for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let pair = |entry: &tollgate::limiter::request::Entry<'_>| {
                let value = text(entry.value);
                let secret = *entry.key == *b"secret";
                let value = if secret { hasher.hash(value.as_bytes()) } else { value };
                format!("{}={value}", text(entry.key))
            };
            let entries: Vec<String> = descriptor.entries.iter().map(pair).collect();
            let rule = status.rule.as_ref().map_or_else(String::new, |rule| rule.label.clone());
            let name = (entries.join("|"), rule, status.client.is_some());
            if status.failed() {
                *exact[usize::from(status.shadow)].entry(name).or_default() += 1;
            }
        }
    }
    for (exact, shadow) in exact.into_iter().zip([false, true]) {
        let ranked = callers(&here, shadow).await;
        assert!(ranked.is_sorted_by_key(|caller| u64::MAX - caller.count()));
        assert!(ranked.iter().all(|caller| caller.max_error() == 0 && !caller.truncated()));
        let mut found = BTreeMap::<Name, u64>::new();
        // A row for each limit that has denied.
        for row in &ranked {
            *found.entry(name(row)).or_default() += row.count();
        }
        assert_eq!(found, exact);
        assert!(exact.len() > 5 && exact.keys().any(|(.., client)| *client), "{exact:?}");
    }
    assert_eq!(callers(&there, false).await, [], "each replica knows its own");
}

#[tokio::test]
async fn counts_cover_the_running_minute_and_the_one_before() {
    let world = World::new();
    let replica = world.replica().await;
    let started = world.time_in(0).seconds;
    let answer = async || list(&replica, GetTopRequest::default()).await.unwrap();
    ask(&replica, "api_key", "a", 5).await;
    world.advance(40);
    // A minute later, so the window of the limit is another one.
    ask(&replica, "api_key", "b", 6).await;
    let both = answer().await;
    assert_eq!(counts(&both.rows), owned([("api_key=b", 3), ("api_key=a", 2)]));
    let seconds = |at: Option<prost_types::Timestamp>| at.unwrap().seconds - started;
    assert_eq!((seconds(both.since), seconds(both.until)), (0, 40), "since the start");
    world.advance(59);
    assert_eq!(answer().await.rows, both.rows);
    world.advance(1);
    let later = answer().await;
    assert_eq!(counts(&later.rows), owned([("api_key=b", 3)]));
    assert_eq!((seconds(later.since), seconds(later.until)), (40, 100), "since a full minute");
    world.advance(60);
    assert_eq!(answer().await.rows, []);
}

#[tokio::test]
async fn callers_are_filtered_cut_to_a_page_and_name_what_limits_them() {
    let world = World::new();
    let replica = world.replica().await;
    for (value, times) in [("a", 4), ("b", 6), ("c", 5)] {
        ask(&replica, "api_key", value, times).await;
    }
    replica.upsert(vec![client(&[("api_key", "b")], vec![per_minute(0)])]).await.unwrap();
    ask(&replica, "api_key", "b", 1).await;
    ask(&replica, "shadowed", "s", 3).await;
    let page = |domain: &str, page_size| {
        list(&replica, GetTopRequest { domain: domain.to_owned(), page_size, ..Default::default() })
    };
    let two = page("edge", 2).await.unwrap();
    assert_eq!(counts(&two.rows), owned([("api_key=b", 3), ("api_key=c", 2)]));
    assert_eq!(two.total(), 4);
    assert_eq!(page("other", 0).await.unwrap().total(), 0);
    let all = page("", 1_000).await.unwrap().rows;
    let limit = |requests_per_unit| {
        let unit = Unit::Minute.into();
        Some(Limit { requests_per_unit: Some(requests_per_unit), unit, ..Limit::default() })
    };
    let limits: Vec<_> =
        all.iter().map(|caller| (&*caller.rule, caller.limit.clone(), caller.client())).collect();
    let by_rule = ("api_key", limit(3), false);
    let blocked = ("api_key", limit(0), true);
    assert_eq!(limits, [by_rule.clone(), by_rule.clone(), by_rule, blocked]);
    assert_eq!(counts(&callers(&replica, true).await), owned([("shadowed=s", 2)]));

    let refused = page("edge", 1_001).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("page_size: found 1001"), "{refused}");
    let off = World { top_callers: 0, ..World::new() }.replica().await;
    let refused = list(&off, GetTopRequest::default()).await;
    assert_eq!(code(&refused), Code::FailedPrecondition);
}

#[tokio::test]
async fn values_are_hashed_also_when_they_become_sensitive_later() {
    let world = World::new();
    let replica = world.replica().await;
    ask(&replica, "secret", "hunter2", 5).await;
    ask(&replica, "api_key", "hunter3", 5).await;
    let marked = POLICY.replace("- key: api_key", "- key: api_key\n    sensitive: true");
    let files = Files::of(vec![Source::new("edge.yaml", marked)]);
    replica.writer.replace(Origin::Files, files).await.unwrap();
    // It counts by the hash now, from zero.
    ask(&replica, "api_key", "hunter3", 4).await;
    let ranked = callers(&replica, false).await;
    let hasher = SensitiveHasher::new(b"key");
    let found: Vec<_> = ranked.iter().map(|c| (&c.entries[0], c.count())).collect();
    let [(api_key, 3), (secret, 2)] = found.as_slice() else { panic!("{found:?}") };
    assert!(api_key.hashed && api_key.value == hasher.hash(b"hunter3"), "{api_key:?}");
    assert!(secret.hashed && secret.value == hasher.hash(b"hunter2"), "{secret:?}");
}
