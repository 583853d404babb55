//! Bad requests: each gets its code and a message that names the field, and nothing is stored.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use tollgate::edge::admin::pb::manage_clients_request::{
    Action, Delete, Get, List, ResetUsage, Upsert,
};
use tollgate::edge::admin::pb::{
    Algorithm, ApplyPolicyRequest, Charge, Client, ClientName, DeletePolicyRequest, ExplainRequest,
    GetPolicyRequest, Limit, ManageClientsRequest, Mode, SetModeRequest, Unit,
};
use tollgate::edge::pb::RateLimitRequest;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::replica::{World, client, entries, name, per_minute};

const ACME: &[(&str, &str)] = &[("api_key", "acme")];

/// A good client with one thing changed.
fn with(change: impl FnOnce(&mut Client)) -> Action {
    let mut client = client(ACME, vec![per_minute(5)]);
    change(&mut client);
    upsert(vec![client])
}

/// A good limit with one thing changed.
fn with_limit(change: impl FnOnce(&mut Limit)) -> Action {
    with(|client| change(&mut client.limits[0]))
}

fn upsert(clients: Vec<Client>) -> Action {
    Action::Upsert(Upsert { clients })
}

fn many(count: usize) -> Vec<Client> {
    let one = |i: usize| client(&[("api_key", &i.to_string())], vec![per_minute(1)]);
    (0..count).map(one).collect()
}

fn named(change: impl FnOnce(&mut ClientName)) -> ClientName {
    let mut name = name(ACME);
    change(&mut name);
    name
}

/// (action, the field at fault)
#[rustfmt::skip]
fn bad_upserts() -> Vec<(Action, &'static str)> {
    let labels = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let long = |bytes: usize| "x".repeat(bytes);
    let number = |value| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(value)) };
    let text = |value| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(value)) };
    let metadata = |value| Some(prost_types::Struct { fields: [("a".to_owned(), value)].into() });
    let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
    vec![
        (upsert(vec![]), "upsert.clients"),
        (upsert(many(1_001)), "upsert.clients"),
        (upsert([many(3), many(2)].concat()), "upsert.clients[3]"),
        (with(|c| c.domain.clear()), "upsert.clients[0].domain"),
        (with(|c| c.domain = long(65)), "upsert.clients[0].domain"),
        (with(|c| c.entries.clear()), "upsert.clients[0].entries"),
        (with(|c| c.entries = entries(&[("a", "b"); 5])), "upsert.clients[0].entries"),
        (with(|c| c.entries[0].key.clear()), "upsert.clients[0].entries[0].key"),
        (with(|c| c.entries[0].key = long(65)), "upsert.clients[0].entries[0].key"),
        (with(|c| c.entries[0].value = long(129)), "upsert.clients[0].entries[0].value"),
        (with(|c| c.limits.clear()), "upsert.clients[0].limits"),
        (with(|c| c.limits = vec![per_minute(1); 17]), "upsert.clients[0].limits"),
        (with(|c| c.limits.push(per_minute(9))), "upsert.clients[0].limits[1]"),
        (with(|c| c.limits.push(Limit { unit: Unit::Second.into(), unit_multiplier: 60, ..per_minute(9) })), "upsert.clients[0].limits[1]"),
        (with(|c| c.limits.push(Limit { algorithm: Algorithm::TokenBucket.into(), ..per_minute(9) })), "upsert.clients[0].limits[1]"),
        (with(|c| c.limits.push(Limit { unlimited: true, ..Limit::default() })), "upsert.clients[0].limits[1].unlimited"),
        (with(|c| c.etag = String::from("old")), "upsert.clients[0].etag"),
        (with(|c| c.etag = String::from("+1")), "upsert.clients[0].etag"),
        (with(|c| c.expires_at = time(1_600_000_000, 0)), "upsert.clients[0].expires_at"),
        (with(|c| c.expires_at = time(1_700_000_000, 0)), "upsert.clients[0].expires_at"),
        (with(|c| c.expires_at = time(-1, 0)), "upsert.clients[0].expires_at"),
        (with(|c| c.expires_at = time(1_900_000_000, 1_000_000_000)), "upsert.clients[0].expires_at"),
        (with(|c| c.expires_at = time(i64::MAX, 0)), "upsert.clients[0].expires_at"),
        (with(|c| c.labels = labels((0..17).map(|i| (i.to_string(), String::new())).collect())), "upsert.clients[0].labels"),
        (with(|c| c.labels = labels(vec![(String::new(), long(1))])), "upsert.clients[0].labels"),
        (with(|c| c.labels = labels(vec![(long(64), long(1))])), "upsert.clients[0].labels"),
        (with(|c| c.labels = labels(vec![("team".to_owned(), long(64))])), "upsert.clients[0].labels[\"team\"]"),
        (with(|c| c.metadata = metadata(number(f64::NAN))), "upsert.clients[0].metadata"),
        (with(|c| c.metadata = metadata(text(long(5_000)))), "upsert.clients[0].metadata"),
        (with_limit(|l| l.unit = 0), "upsert.clients[0].limits[0].unit"),
        (with_limit(|l| l.unit = 8), "upsert.clients[0].limits[0].unit"),
        (with_limit(|l| l.unit = -1), "upsert.clients[0].limits[0].unit"),
        (with_limit(|l| l.unit_multiplier = u32::MAX), "upsert.clients[0].limits[0].unit_multiplier"),
        (with_limit(|l| { l.unit = Unit::Year.into(); l.unit_multiplier = 11; }), "upsert.clients[0].limits[0].unit_multiplier"),
        (with_limit(|l| l.algorithm = 4), "upsert.clients[0].limits[0].algorithm"),
        (with_limit(|l| l.charge = 4), "upsert.clients[0].limits[0].charge"),
        (with_limit(|l| l.on_store_failure = 5), "upsert.clients[0].limits[0].on_store_failure"),
        (with_limit(|l| { l.algorithm = Algorithm::FixedWindow.into(); l.burst = 1; }), "upsert.clients[0].limits[0].burst"),
        (with_limit(|l| l.burst = 1), "upsert.clients[0].limits[0].burst"),
        (with_limit(|l| { l.algorithm = Algorithm::TokenBucket.into(); l.requests_per_unit = Some(0); l.burst = 1; }), "upsert.clients[0].limits[0].burst"),
        (with_limit(|l| { l.algorithm = Algorithm::TokenBucket.into(); l.requests_per_unit = Some(1); l.unit = Unit::Year.into(); l.burst = 100; }), "upsert.clients[0].limits[0].burst"),
        (with_limit(|l| { l.algorithm = Algorithm::TokenBucket.into(); l.slots = 5; }), "upsert.clients[0].limits[0].slots"),
        (with_limit(|l| { l.algorithm = Algorithm::SlidingWindow.into(); l.slots = 1_001; }), "upsert.clients[0].limits[0].slots"),
        (with_limit(|l| { l.algorithm = Algorithm::TokenBucket.into(); l.max_debt = Some(1); }), "upsert.clients[0].limits[0].max_debt"),
        (with_limit(|l| { l.charge = Charge::Always.into(); l.max_debt = Some(1); }), "upsert.clients[0].limits[0].max_debt"),
        (with_limit(|l| l.name = String::from("a\"b")), "upsert.clients[0].limits[0].name"),
        (with_limit(|l| l.name = String::from("é")), "upsert.clients[0].limits[0].name"),
        (with_limit(|l| l.name = long(129)), "upsert.clients[0].limits[0].name"),
        (with_limit(|l| { *l = Limit { unlimited: true, requests_per_unit: Some(1), ..Limit::default() } }), "upsert.clients[0].limits[0].requests_per_unit"),
        (with_limit(|l| l.unlimited = true), "upsert.clients[0].limits[0].unit"),
    ]
}

#[rustfmt::skip]
fn bad_others() -> Vec<(Action, &'static str)> {
    let list = |page_size, token: &str| Action::List(List { page_size, page_token: token.to_owned(), domain: "edge".to_owned(), ..List::default() });
    vec![
        (Action::Get(Get { client: None }), "get.client"),
        (Action::Get(Get { client: Some(named(|n| n.domain.clear())) }), "get.client.domain"),
        (Action::Get(Get { client: Some(named(|n| n.entries.clear())) }), "get.client.entries"),
        (Action::Delete(Delete::default()), "delete.client"),
        (Action::Delete(Delete { client: Some(named(|n| n.etag = String::from("x"))), ..Delete::default() }), "delete.client.etag"),
        (Action::Delete(Delete { client: Some(named(|n| n.entries[0].key.clear())), ..Delete::default() }), "delete.client.entries[0].key"),
        (Action::ResetUsage(ResetUsage::default()), "reset_usage.client"),
        (list(1_001, ""), "list.page_size"),
        (list(1, "zz"), "list.page_token"),
        (list(1, "01"), "list.page_token"),
        // A token of another domain's list.
        (list(1, "010000000000000000636c69656e742f6f746865720000610000620000"), "list.page_token"),
    ]
}

fn assert_violation(status: &Status, field: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    let details = status.get_details_bad_request().expect("details");
    let fields: Vec<&str> = details.field_violations.iter().map(|v| &*v.field).collect();
    assert!(fields.contains(&field), "{field} is not among {fields:?}");
    let first = fields[0];
    assert!(status.message().contains(first), "{first}: {}", status.message());
    assert!(details.field_violations.iter().all(|v| !v.description.is_empty()));
}

#[tokio::test]
async fn every_bad_client_request_names_its_field_and_stores_nothing() {
    let world = World::new();
    let replica = world.replica().await;
    let table: Vec<_> = bad_upserts().into_iter().chain(bad_others()).collect();
    assert!(table.len() >= 40);
    for (action, field) in table {
        for validate_only in [false, true] {
            let request = ManageClientsRequest { action: Some(action.clone()), validate_only };
            let status = replica.clients.clone().manage_clients(request).await.unwrap_err();
            assert_violation(&status, field);
        }
    }
    let status =
        replica.clients.clone().manage_clients(ManageClientsRequest::default()).await.unwrap_err();
    assert_violation(&status, "action");
    assert_eq!((world.registry.len(), world.registry.revision()), (0, 0));
    assert!(replica.shared.resolver.clients.directory().is_empty());
}

#[tokio::test]
async fn one_bad_client_of_many_stores_none_and_violations_stay_sendable() {
    let world = World::new();
    let replica = world.replica().await;
    let mut clients = many(1_000);
    clients[700].limits[0].unit = 0;
    let status = replica.upsert(clients.clone()).await.unwrap_err();
    assert_violation(&status, "upsert.clients[700].limits[0].unit");
    for client in &mut clients {
        client.limits[0].unit = 0;
    }
    let status = replica.upsert(clients).await.unwrap_err();
    assert_violation(&status, "upsert.clients[15].limits[0].unit");
    assert!(status.message().ends_with("(and 999 more)"), "{}", status.message());
    assert_eq!(world.registry.len(), 0);
}

#[tokio::test]
async fn every_bad_policy_request_names_its_field_and_stores_nothing() {
    let world = World::new();
    let replica = world.replica().await;
    let mut policies = replica.policies.clone();
    for (yaml, etag, part) in [
        ("", "", "yaml: is required"),
        ("domain: d\nrules: []\n", "", "yaml:2:1: unknown key \"rules\""),
        ("descriptors: []\n", "", "yaml:1:1: "),
        ("domain: ''\n", "", "yaml:1:9: "),
        ("a: [", "", "yaml:2:1: not valid YAML"),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: eon}}]",
            "",
            "yaml:2:43: unit must be",
        ),
        ("domain: d\n", "x", "etag: is no etag"),
    ] {
        let request = ApplyPolicyRequest {
            yaml: yaml.to_owned(),
            etag: etag.to_owned(),
            validate_only: false,
        };
        let status = policies.apply_policy(request).await.unwrap_err();
        assert!(status.message().contains(part), "{yaml:?}: {}", status.message());
        assert_violation(&status, if etag.is_empty() { "yaml" } else { "etag" });
    }
    let domain = String::new();
    let get = GetPolicyRequest { domain: domain.clone(), version: 0 };
    assert_violation(&policies.get_policy(get).await.unwrap_err(), "domain");
    let delete = DeletePolicyRequest { domain, etag: "1x".to_owned() };
    let status = policies.delete_policy(delete).await.unwrap_err();
    assert_violation(&status, "domain");
    assert_violation(&status, "etag");
    let set = SetModeRequest { domain: "x".repeat(65), mode: 9 };
    let status = policies.set_mode(set).await.unwrap_err();
    assert_violation(&status, "domain");
    assert_violation(&status, "mode");
    let status = policies.explain(ExplainRequest { request: None }).await.unwrap_err();
    assert_violation(&status, "request");
    let request = Some(RateLimitRequest::default());
    let status = policies.explain(ExplainRequest { request }).await.unwrap_err();
    assert_violation(&status, "request.domain");
    assert_eq!(world.registry.revision(), 0);
}

#[tokio::test]
async fn without_the_right_token_nothing_is_answered() {
    let world = World::new();
    let replica = world.replica_with(Some("s3cret")).await;
    let set = || SetModeRequest { domain: String::new(), mode: Mode::Off.into() };
    for authorization in [None, Some("Bearer wrong"), Some("s3cret")] {
        let mut request = tonic::Request::new(set());
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let status = replica.policies.clone().set_mode(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("authorization: "), "{}", status.message());
    }
    let status = replica.upsert(many(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(world.registry.revision(), 0);
    let mut request = tonic::Request::new(set());
    request.metadata_mut().insert("authorization", "Bearer s3cret".parse().unwrap());
    replica.policies.clone().set_mode(request).await.unwrap();
    assert_eq!(world.registry.revision(), 1);
}

#[tokio::test]
async fn registry_that_is_away_is_unavailable_and_nothing_changes() {
    let world = World::new();
    let replica = world.replica().await;
    world.registry.set_away(true);
    let status = replica.upsert(many(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let get = replica.manage(Action::Get(Get { client: Some(name(ACME)) })).await.unwrap_err();
    assert_eq!(get.code(), Code::Unavailable);
    assert!(replica.shared.resolver.clients.directory().is_empty());
    assert_eq!(replica.admitted(ACME, 10).await, 3);
    // In an emergency off must mean off.
    let set = SetModeRequest { domain: String::new(), mode: Mode::Off.into() };
    let set = replica.policies.clone().set_mode(set).await.unwrap().into_inner();
    assert_eq!((set.mode(), set.warnings.len()), (Mode::Off, 1));
    assert_eq!(replica.admitted(ACME, 10).await, 10);
}
