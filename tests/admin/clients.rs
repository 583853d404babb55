//! Clients: which limit a request gets, and the life of a client from upsert to expiry.

use futures_util::future::join_all;
use tollgate::control::sweep::sweep;
use tollgate::domain::Verdict;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Delete, Get, List, ResetUsage};
use tollgate::edge::admin::pb::{Algorithm, Client, Limit, ManageClientsRequest, Unit};
use tollgate::limiter::request::Override;
use tollgate::telemetry::metrics::TextFormat;
use tonic::Code;

use crate::replica::{World, client, code, name, per_minute, request};

const ACME: &[(&str, &str)] = &[("api_key", "acme")];

#[tokio::test]
async fn client_goes_before_the_rule_and_gives_way_when_it_is_deleted() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    assert_eq!(here.admitted(ACME, 10).await, 3);
    let answer = here.upsert(vec![client(ACME, vec![per_minute(8)])]).await.unwrap();
    assert_eq!((answer.clients[0].etag.as_str(), answer.revision()), ("1", 1));
    assert_eq!(here.admitted(ACME, 10).await, 5, "three of the eight are used");
    world.advance(60);
    there.follow().await;
    assert_eq!(there.admitted(ACME, 10).await, 8);
    assert_eq!(here.admitted(&[("api_key", "other")], 10).await, 3);

    let delete = Action::Delete(Delete { client: Some(name(ACME)), ..Delete::default() });
    let answer = there.manage(delete.clone()).await.unwrap();
    assert_eq!(answer.clients[0].limits, vec![per_minute(8)]);
    here.follow().await;
    world.advance(60);
    assert_eq!(here.admitted(ACME, 10).await, 3);
    assert_eq!(code(&there.manage(delete).await), Code::NotFound);
}

#[tokio::test]
async fn zero_blocks_and_unlimited_is_not_counted() {
    let world = World::new();
    let replica = world.replica().await;
    replica.upsert(vec![client(ACME, vec![per_minute(0)])]).await.unwrap();
    assert_eq!(replica.admitted(ACME, 10).await, 0);
    let unlimited = Limit { unlimited: true, ..Limit::default() };
    replica.upsert(vec![client(ACME, vec![unlimited])]).await.unwrap();
    assert_eq!(replica.admitted(ACME, 100).await, 100);
    assert!(world.store.is_empty());
}

#[tokio::test]
async fn every_limit_of_a_client_counts_in_every_algorithm() {
    let algorithms = [
        Algorithm::Unspecified,
        Algorithm::SlidingWindow,
        Algorithm::TokenBucket,
        Algorithm::FixedWindow,
    ];
    for algorithm in algorithms {
        let world = World::new();
        let replica = world.replica().await;
        let limit = |requests_per_unit, unit: Unit| Limit {
            requests_per_unit: Some(requests_per_unit),
            unit: unit.into(),
            algorithm: algorithm.into(),
            ..Limit::default()
        };
        let limits = vec![limit(4, Unit::Second), limit(6, Unit::Day)];
        replica.upsert(vec![client(ACME, limits)]).await.unwrap();
        assert_eq!(replica.admitted(ACME, 10).await, 4, "{algorithm:?}");
        world.advance(2);
        assert_eq!(replica.admitted(ACME, 10).await, 2, "{algorithm:?}");
    }
}

#[tokio::test]
async fn client_goes_before_an_override() {
    let world = World::new();
    let replica = world.replica().await;
    replica.upsert(vec![client(ACME, vec![per_minute(2)])]).await.unwrap();
    let mut wanted = request("edge", &[ACME]);
    for unit in [Some(tollgate::domain::Unit::Hour), None] {
        world.advance(60);
        wanted.descriptors[0].limit =
            Some(Override { requests_per_unit: 100, unit, unit_multiplier: 1 });
        for expected in [Verdict::Admit, Verdict::Admit, Verdict::Deny] {
            let decision = replica.decide(&wanted).await;
            assert_eq!(decision.verdict, expected);
            assert!(decision.statuses[0].client.is_some());
        }
    }
}

#[tokio::test]
async fn client_keeps_the_rules_modes_unless_it_has_its_own() {
    let world = World::new();
    let replica = world.replica().await;
    let shadowed: &[(&str, &str)] = &[("shadowed", "x")];
    let general: &[(&str, &str)] = &[("general", "x")];
    let special: &[(&str, &str)] = &[("special", "x")];
    let open = |pairs, shadow| {
        let shadow_mode = shadow;
        Client { shadow_mode, ..client(pairs, vec![per_minute(1)]) }
    };
    replica.upsert(vec![open(shadowed, None), open(ACME, Some(true))]).await.unwrap();
    assert_eq!(replica.admitted(shadowed, 5).await, 5);
    assert_eq!(replica.admitted(ACME, 5).await, 5);
    replica.upsert(vec![open(shadowed, Some(false)), open(ACME, None)]).await.unwrap();
    assert_eq!(replica.admitted(shadowed, 5).await, 0);
    assert_eq!(replica.admitted(ACME, 5).await, 0);

    replica.upsert(vec![client(special, vec![per_minute(3)])]).await.unwrap();
    let both = request("edge", &[special, general]);
    for expected in [Verdict::Admit, Verdict::Admit, Verdict::Admit, Verdict::Deny] {
        assert_eq!(replica.decide(&both).await.verdict, expected, "the rule still replaces");
    }
}

#[tokio::test]
async fn client_of_a_shared_pattern_has_a_counter_of_its_own() {
    let world = World::new();
    let replica = world.replica().await;
    let (own, other): (&[_], &[_]) = (&[("file", "f/own")], &[("file", "f/other")]);
    replica.upsert(vec![client(own, vec![per_minute(2)])]).await.unwrap();
    assert_eq!(replica.admitted(other, 5).await, 1);
    assert_eq!(replica.admitted(own, 5).await, 2);
    world.advance(61);
    assert_eq!(replica.admitted(own, 5).await, 2);
    assert_eq!(replica.admitted(other, 5).await, 1);
}

#[tokio::test]
async fn domain_is_known_when_a_client_names_it() {
    let world = World::new();
    let replica = world.replica().await;
    let mut other = client(ACME, vec![per_minute(1)]);
    other.domain = "elsewhere".to_owned();
    let answer = replica.upsert(vec![other]).await.unwrap();
    assert!(answer.warnings[0].contains("upsert.clients[0].domain: no policy"), "{answer:?}");
    let wanted = request("elsewhere", &[ACME, &[("nobody", "x")]]);
    assert_eq!(replica.decide(&wanted).await.verdict, Verdict::Admit);
    assert_eq!(replica.decide(&wanted).await.verdict, Verdict::Deny);
    assert_eq!(replica.shared.metrics.requests.unknown_domain.get(), 0);
    let text = replica.shared.metrics.render(TextFormat::OpenMetrics);
    assert!(
        text.contains(
            r#"domain="elsewhere",rule="(client)",limit="(client)",outcome="over_limit"} 1"#
        ),
        "{text}"
    );
}

#[tokio::test]
async fn warnings_tell_prefixes_and_descriptors_without_a_rule() {
    let world = World::new();
    let replica = world.replica().await;
    let clients = vec![
        client(ACME, vec![per_minute(1)]),
        client(&[("api_key", "a"), ("path", "/")], vec![per_minute(1)]),
        client(&[("unheard", "of")], vec![per_minute(1)]),
    ];
    let warnings = replica.upsert(clients).await.unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("upsert.clients[0].entries: the policy has longer"));
    assert!(warnings[1].starts_with("upsert.clients[2].entries: no rule matches"));
}

#[tokio::test]
async fn warnings_tell_values_that_look_like_many() {
    let world = World::new();
    let replica = world.replica().await;
    let clients = ["10.0.0.0/8", "10.0.*", "10.0.0.7"]
        .map(|value| client(&[("remote_address", value)], vec![per_minute(1)]));
    let warnings = replica.upsert(clients.into()).await.unwrap().warnings;
    let literal: Vec<_> = warnings.iter().filter(|text| text.contains("as text")).collect();
    assert_eq!(literal.len(), 2, "{warnings:#?}");
    assert!(literal[0].starts_with("upsert.clients[0].entries[0].value: "), "{literal:?}");
    assert!(literal[0].contains("masked_remote_address"), "{literal:?}");
    assert!(literal[1].starts_with("upsert.clients[1].entries[0].value: "), "{literal:?}");
    assert!(literal[1].contains("put it into the policy"), "{literal:?}");
}

#[tokio::test]
async fn expired_client_is_as_if_it_were_deleted_and_then_is() {
    let world = World::new();
    let replica = world.replica().await;
    let mut guest = client(ACME, vec![per_minute(8)]);
    guest.expires_at = Some(world.time_in(120));
    replica.upsert(vec![guest, client(&[("api_key", "b")], vec![per_minute(1)])]).await.unwrap();
    assert_eq!(replica.admitted(ACME, 10).await, 8);
    assert_eq!(sweep(&replica.control).await, Ok(0));
    world.advance(120);
    assert_eq!(replica.admitted(ACME, 10).await, 3);
    let get = replica.manage(Action::Get(Get { client: Some(name(ACME)) })).await;
    assert_eq!(code(&get), Code::NotFound);
    let list = replica.manage(Action::List(List::default())).await.unwrap();
    assert_eq!(list.clients.len(), 1);
    assert_eq!(world.registry.len(), 2);

    let late = world.replica().await;
    late.follow().await;
    assert_eq!(sweep(&replica.control).await, Ok(1));
    assert_eq!(sweep(&late.control).await, Ok(0), "somebody else did it");
    assert_eq!(world.registry.len(), 1);
    assert_eq!(replica.shared.resolver.clients.directory().len(), 1);
}

#[tokio::test]
async fn replicas_that_sweep_at_once_delete_each_client_once_and_none_that_has_changed() {
    let world = World::new();
    let replicas = [world.replica().await, world.replica().await, world.replica().await];
    let ending = |i: usize, seconds| {
        let expires_at = Some(world.time_in(seconds));
        Client { expires_at, ..client(&[("api_key", &format!("{i:04}"))], vec![per_minute(1)]) }
    };
    let all = |seconds| (0..700).map(|i| ending(i, seconds)).collect();
    let written = replicas[0].upsert(all(60)).await.unwrap().revision();
    for replica in &replicas {
        replica.follow().await;
    }
    world.advance(60);
    // Of this the last replica never hears.
    replicas[2].stop_following();
    replicas[0].upsert(vec![ending(3, 60)]).await.unwrap();
    let counts = join_all(replicas.iter().map(|replica| sweep(&replica.control))).await;
    let deleted: usize = counts.into_iter().map(Result::unwrap).sum();
    let left = sweep(&replicas[0].control).await.unwrap();
    assert_eq!((deleted + left, world.registry.len()), (699, 1));
    let newest = replicas[0].upsert(vec![ending(3, 90)]).await.unwrap();
    assert_eq!(newest.revision(), written + 4, "two upserts, and a write for each of two pages");
}

#[tokio::test]
async fn sixteen_writers_with_one_etag_have_one_winner() {
    let world = World::new();
    let mut replicas = Vec::new();
    for _ in 0..4 {
        replicas.push(world.replica().await);
    }
    let mut etag = replicas[0].upsert(vec![client(ACME, vec![per_minute(1)])]).await.unwrap();
    for round in 0..20 {
        let held = etag.clients[0].etag.clone();
        let write = |i: u32| {
            // Never what is stored already: that is no write.
            let mut next = client(ACME, vec![per_minute(100 + 16 * round + i)]);
            next.etag.clone_from(&held);
            let replica = &replicas[i as usize % replicas.len()];
            async move { replica.upsert(vec![next]).await }
        };
        let answers = join_all((0..16).map(write)).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 15), "round {round}");
        for status in lost.into_iter().map(Result::unwrap_err) {
            assert_eq!(status.code(), Code::Aborted);
            assert!(status.message().starts_with("upsert.clients[0].etag: is stale"), "{status}");
        }
        etag = won.into_iter().next().unwrap().unwrap();
    }
    let get = replicas[0].manage(Action::Get(Get { client: Some(name(ACME)) })).await.unwrap();
    assert_eq!(get.clients, etag.clients);
}

#[tokio::test]
async fn stale_etag_of_one_client_stores_none_of_the_batch() {
    let world = World::new();
    let replica = world.replica().await;
    replica.upsert(vec![client(ACME, vec![per_minute(1)])]).await.unwrap();
    let mut stale = client(ACME, vec![per_minute(9)]);
    stale.etag = "7".to_owned();
    let batch = vec![client(&[("api_key", "b")], vec![per_minute(1)]), stale];
    for validate_only in [true, false] {
        let upsert =
            tollgate::edge::admin::pb::manage_clients_request::Upsert { clients: batch.clone() };
        let action = Some(Action::Upsert(upsert));
        let request = ManageClientsRequest { action, validate_only };
        let status = replica.clients.clone().manage_clients(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        assert!(status.message().starts_with("upsert.clients[1].etag: "), "{status}");
    }
    let mut named = name(ACME);
    named.etag = "7".to_owned();
    let delete =
        replica.manage(Action::Delete(Delete { client: Some(named), ..Delete::default() })).await;
    assert_eq!(code(&delete), Code::Aborted);
    assert_eq!((world.registry.len(), world.registry.revision()), (1, 1));
}

#[tokio::test]
async fn validate_only_answers_as_if_and_does_nothing() {
    let world = World::new();
    let replica = world.replica().await;
    let wanted = client(ACME, vec![per_minute(9)]);
    let upsert =
        tollgate::edge::admin::pb::manage_clients_request::Upsert { clients: vec![wanted] };
    let action = Some(Action::Upsert(upsert));
    let request = ManageClientsRequest { action, validate_only: true };
    let answer = replica.clients.clone().manage_clients(request).await.unwrap().into_inner();
    assert_eq!(answer.clients[0].limits, vec![per_minute(9)]);
    assert_eq!(answer.clients[0].etag, "");
    assert_eq!((world.registry.revision(), replica.admitted(ACME, 10).await), (0, 3));
    replica.upsert(vec![client(ACME, vec![per_minute(9)])]).await.unwrap();
    let action = Some(Action::Delete(Delete { client: Some(name(ACME)), ..Delete::default() }));
    let request = ManageClientsRequest { action, validate_only: true };
    replica.clients.clone().manage_clients(request).await.unwrap();
    assert_eq!(world.registry.len(), 1);
}

#[tokio::test]
async fn what_was_written_is_read_back_whole() {
    let world = World::new();
    let replica = world.replica().await;
    let value =
        prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("gold".to_owned())) };
    let mut wanted = client(
        ACME,
        vec![
            Limit {
                requests_per_unit: Some(7),
                unit: Unit::Hour.into(),
                unit_multiplier: 2,
                name: "acme".to_owned(),
                algorithm: Algorithm::TokenBucket.into(),
                burst: 9,
                charge: tollgate::edge::admin::pb::Charge::Always.into(),
                max_debt: Some(11),
                on_store_failure: tollgate::edge::admin::pb::OnStoreFailure::Deny.into(),
                ..Limit::default()
            },
            Limit {
                requests_per_unit: Some(70),
                unit: Unit::Day.into(),
                algorithm: Algorithm::TokenBucket.into(),
                charge: tollgate::edge::admin::pb::Charge::Settled.into(),
                max_debt: Some(5),
                ..Limit::default()
            },
        ],
    );
    wanted.shadow_mode = Some(false);
    wanted.quota_mode = Some(true);
    wanted.metadata = Some(prost_types::Struct { fields: [("tier".to_owned(), value)].into() });
    wanted.labels = [("team".to_owned(), "blue".to_owned())].into();
    wanted.expires_at = Some(world.time_in(1_000));
    replica.upsert(vec![wanted.clone()]).await.unwrap();
    let get = replica.manage(Action::Get(Get { client: Some(name(ACME)) })).await.unwrap();
    wanted.etag = "1".to_owned();
    wanted.updated_at = Some(world.time_in(0));
    assert_eq!(get.clients, vec![wanted.clone()]);
    let list = replica.manage(Action::List(List::default())).await.unwrap();
    assert_eq!(list.clients, vec![wanted]);
}

#[tokio::test]
async fn pages_go_through_all_while_others_come_and_go() {
    let world = World::new();
    let replica = world.replica().await;
    let batch = |from: usize| {
        let one = |i: usize| client(&[("api_key", &format!("{i:05}"))], vec![per_minute(1)]);
        (from..from + 500).map(|i| one(i * 2)).collect::<Vec<_>>()
    };
    replica.upsert(batch(0)).await.unwrap();
    replica.upsert(batch(500)).await.unwrap();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = List { domain: "edge".to_owned(), page_size: 33, page_token, ..List::default() };
        let page = replica.manage(Action::List(list)).await.unwrap();
        assert!(page.total() >= 1_000);
        let value = |client: &Client| client.entries[0].value.clone();
        seen.extend(page.clients.iter().map(value));
        let odd = format!("{:05}", seen.len() * 7 % 2_000 / 2 * 2 + 1);
        replica.upsert(vec![client(&[("api_key", &odd)], vec![per_minute(1)])]).await.unwrap();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(seen.is_sorted());
    let even: Vec<_> = seen.iter().filter(|v| v.parse::<usize>().unwrap() % 2 == 0).collect();
    assert_eq!(even.len(), 1_000);
}

#[tokio::test]
async fn reset_usage_empties_the_clients_counters_and_no_others() {
    let world = World::new();
    let replica = world.replica().await;
    let day = Limit { unit: Unit::Day.into(), ..per_minute(5) };
    replica.upsert(vec![client(ACME, vec![per_minute(2), day])]).await.unwrap();
    let secret: &[(&str, &str)] = &[("secret", "s")];
    replica.upsert(vec![client(secret, vec![per_minute(2)])]).await.unwrap();
    assert_eq!(replica.admitted(ACME, 5).await, 2);
    assert_eq!(replica.admitted(secret, 5).await, 2);
    let reset = |pairs| Action::ResetUsage(ResetUsage { client: Some(name(pairs)), limit: None });
    assert_eq!(replica.manage(reset(ACME)).await.unwrap().counters_reset(), 2);
    assert_eq!(replica.manage(reset(ACME)).await.unwrap().counters_reset(), 0);
    assert_eq!(replica.admitted(secret, 5).await, 0);
    assert_eq!(replica.admitted(ACME, 5).await, 2);
    assert_eq!(replica.manage(reset(secret)).await.unwrap().counters_reset(), 1);
    assert_eq!(replica.admitted(secret, 5).await, 2);
}
