//! Counters that an operator empties: of any descriptor, whatever limits it.

use tollgate::domain::Unit;
use tollgate::edge::admin::pb::manage_clients_request::{Action, ResetUsage};
use tollgate::edge::admin::pb::{Client, ClientName, Limit, ManageClientsRequest};
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::limiter::request::Override;
use tonic::Code;

use crate::replica::{Replica, World, client, code, name, per_minute, request};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn reset(client: ClientName, limit: Option<RateLimitOverride>) -> Action {
    Action::ResetUsage(ResetUsage { client: Some(client), limit })
}

/// The number of counters that held something, and the warnings.
async fn emptied(replica: &Replica, pairs: Pairs<'_>) -> (u32, Vec<String>) {
    let answer = replica.manage(reset(name(pairs), None)).await.unwrap();
    assert_eq!(answer.clients, Vec::<Client>::new(), "no client");
    (answer.counters_reset.unwrap(), answer.warnings)
}

#[tokio::test]
async fn rule_lets_pass_again_what_was_reset_and_nothing_more() {
    let world = World::new();
    let replica = world.replica().await;
    let limited: [(Pairs<'_>, usize); 5] = [
        (&[("api_key", "a")], 3),
        (&[("api_key", "a"), ("path", "/")], 2),
        (&[("bucket", "a")], 4),
        (&[("secret", "in clear")], 3),
        (&[("quota", "a")], 2),
    ];
    for (pairs, limit) in limited {
        let other: Pairs<'_> = &[(pairs[0].0, "other")];
        let of_other = replica.admitted(other, 10).await;
        assert_eq!(replica.admitted(pairs, 10).await, limit, "{pairs:?}");
        assert_eq!(emptied(&replica, pairs).await, (1, vec![]), "{pairs:?}");
        assert_eq!(emptied(&replica, pairs).await, (0, vec![]), "{pairs:?}");
        assert_eq!(replica.admitted(pairs, 10).await, limit, "{pairs:?}");
        assert_eq!(replica.admitted(other, 10).await, 0, "{of_other} before");
    }
}

#[tokio::test]
async fn counter_of_a_shared_pattern_is_emptied_with_a_warning() {
    let world = World::new();
    let replica = world.replica().await;
    assert_eq!(replica.admitted(&[("file", "f/1")], 5).await, 1);
    let (count, warnings) = emptied(&replica, &[("file", "f/2")]).await;
    assert_eq!(count, 1);
    assert!(warnings[0].contains(r#"pattern "f/*" share"#), "{warnings:?}");
    assert_eq!(replica.admitted(&[("file", "f/1")], 5).await, 1);
}

#[tokio::test]
async fn limit_that_requests_bring_along_is_found_by_its_numbers() {
    let world = World::new();
    let replica = world.replica().await;
    for (key, unit) in [("api_key", Unit::Hour), ("bucket", Unit::Hour), ("unheard", Unit::Day)] {
        let mut wanted = request("edge", &[&[(key, "v")]]);
        wanted.descriptors[0].limit =
            Some(Override { requests_per_unit: 2, unit: Some(unit), unit_multiplier: 1 });
        for _ in 0..3 {
            replica.decide(&wanted).await;
        }
        let denied = async || replica.decide(&wanted).await.statuses[0].over_limit();
        assert!(denied().await, "{key}");
        assert_eq!(emptied(&replica, &[(key, "v")]).await.0, 0, "the rule's: {key}");
        assert!(denied().await, "{key}");
        let unit = if unit == Unit::Hour { 3 } else { 4 };
        let limit = RateLimitOverride { requests_per_unit: 2, unit, unit_multiplier: None };
        let answer = replica.manage(reset(name(&[(key, "v")]), Some(limit))).await.unwrap();
        assert_eq!((answer.counters_reset, answer.warnings), (Some(1), vec![]), "{key}");
        assert!(!denied().await, "{key}");
    }
}

#[tokio::test]
async fn what_counts_nowhere_is_said() {
    let world = World::new();
    let replica = world.replica().await;
    let unlimited = Limit { unlimited: true, ..Limit::default() };
    replica.upsert(vec![client(&[("api_key", "free")], vec![unlimited])]).await.unwrap();
    let elsewhere = ClientName { domain: "elsewhere".to_owned(), ..name(&[("k", "v")]) };
    let senseless = RateLimitOverride { requests_per_unit: 1, unit: 99, unit_multiplier: None };
    for (named, limit, reason) in [
        (elsewhere, None, "reset_usage.client.domain: no policy and no client names it"),
        (name(&[("unheard", "v")]), None, "reset_usage.client.entries: no rule limits them"),
        (name(&[("unheard", "v")]), Some(senseless), "reset_usage.limit: cannot be understood"),
        (name(&[("api_key", "free")]), None, "unlimited, so nothing counts"),
    ] {
        let answer = replica.manage(reset(named, limit)).await.unwrap();
        assert_eq!(answer.counters_reset, Some(0), "{reason}");
        assert!(answer.warnings[0].contains(reason), "{:?}", answer.warnings);
    }
}

#[tokio::test]
async fn client_is_answered_and_its_etag_is_checked() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    let acme: Pairs<'_> = &[("api_key", "acme")];
    here.upsert(vec![client(acme, vec![per_minute(5)])]).await.unwrap();
    assert_eq!(here.admitted(acme, 10).await, 5);
    // Not only where it was stored, and at once.
    let answer = there.manage(reset(name(acme), None)).await.unwrap();
    assert_eq!((answer.clients.len(), answer.counters_reset), (1, Some(1)));
    assert_eq!(here.admitted(acme, 10).await, 5);
    let stale = ClientName { etag: "7".to_owned(), ..name(acme) };
    assert_eq!(code(&here.manage(reset(stale, None)).await), Code::Aborted);
    let gone = ClientName { etag: "1".to_owned(), ..name(&[("api_key", "gone")]) };
    assert_eq!(code(&here.manage(reset(gone, None)).await), Code::Aborted);
    let action = Some(reset(name(acme), None));
    let request = ManageClientsRequest { action, validate_only: true };
    let answer = here.clients.clone().manage_clients(request).await.unwrap().into_inner();
    assert_eq!((answer.clients.len(), answer.counters_reset), (1, None));
    assert_eq!(here.admitted(acme, 10).await, 0, "nothing was emptied");
}
