//! One plan for many clients: pages, filters, names, and writers that are faster.

use tollgate::edge::admin::pb::manage_clients_request::{Action, Get, List, SetPlan};
use tollgate::edge::admin::pb::{Client, ClientName, ManageClientsRequest, ManageClientsResponse};
use tonic::{Code, Status};

use crate::plans::{member, plan, put};
use crate::replica::{Replica, World, client, code, name, per_minute};

fn key(i: usize) -> String {
    format!("{i:05}")
}

/// The `i`-th client of the silver plan; every second one has the label.
fn numbered(i: usize) -> Client {
    let team = if i.is_multiple_of(2) { "even" } else { "odd" };
    let labels = [("team".to_owned(), team.to_owned())].into();
    Client { labels, ..member(&[("api_key", &key(i))], "silver") }
}

async fn with_plans(replica: &Replica, clients: usize) {
    for (name, requests) in [("gold", 9), ("silver", 5)] {
        put(replica, plan(name, vec![per_minute(requests)])).await.unwrap();
    }
    for first in (0..clients).step_by(1_000) {
        let last = clients.min(first + 1_000);
        replica.upsert((first..last).map(numbered).collect()).await.unwrap();
    }
}

fn to_gold() -> SetPlan {
    let (domain, plan) = ("edge".to_owned(), "gold".to_owned());
    SetPlan { domain, plan, ..SetPlan::default() }
}

async fn call(
    replica: &Replica,
    set_plan: SetPlan,
    validate_only: bool,
) -> Result<ManageClientsResponse, Status> {
    let request = ManageClientsRequest { action: Some(Action::SetPlan(set_plan)), validate_only };
    Ok(replica.clients.clone().manage_clients(request).await?.into_inner())
}

/// The number of clients that have the plan.
async fn count(replica: &Replica, plan: &str) -> usize {
    let mut list = List { page_size: 1_000, plan: plan.to_owned(), ..List::default() };
    let mut found = 0;
    loop {
        let page = replica.manage(Action::List(list.clone())).await.unwrap();
        found += page.clients.len();
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn thousand_clients_a_call_get_the_plan_until_none_is_left() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    with_plans(&here, 5_000).await;
    let labels = [("team".to_owned(), "odd".to_owned())].into();
    let mut request = SetPlan { labels, from_plan: "silver".to_owned(), ..to_gold() };
    let dry = call(&there, request.clone(), true).await.unwrap();
    assert_eq!((dry.changed, count(&here, "gold").await), (Some(1_000), 0));
    assert_ne!(dry.next_page_token, "");

    let before = world.registry.revision();
    let mut changed = Vec::new();
    loop {
        let answer = call(&there, request.clone(), false).await.unwrap();
        changed.push(answer.changed());
        assert_eq!(answer.revision(), before + changed.len() as u64, "one write a call");
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(changed, [1_000, 1_000, 500]);
    here.follow().await;
    assert_eq!((count(&here, "gold").await, count(&here, "silver").await), (2_500, 2_500));
    assert_eq!(here.admitted(&[("api_key", &key(1))], 20).await, 9);
    assert_eq!(here.admitted(&[("api_key", &key(2))], 20).await, 5);
    let get = |i| Action::Get(Get { client: Some(name(&[("api_key", &key(i))])) });
    let etag = here.manage(get(1)).await.unwrap().clients.remove(0).etag;
    assert_eq!(etag, (before + 1).to_string(), "moves on");
    assert_ne!(here.manage(get(2)).await.unwrap().clients[0].etag, etag);

    let again = call(&here, request, false).await.unwrap();
    assert_eq!((again.changed(), world.registry.revision()), (0, before + 3), "nothing is left");
}

#[tokio::test]
async fn named_clients_get_the_plan_all_or_none() {
    let world = World::new();
    let replica = world.replica().await;
    with_plans(&replica, 3).await;
    let unlimited = tollgate::edge::admin::pb::Limit { unlimited: true, ..Default::default() };
    let free = client(&[("api_key", "free")], vec![unlimited]);
    let own = client(&[("api_key", "own")], vec![per_minute(4)]);
    replica.upsert(vec![free, own]).await.unwrap();
    let named = |value: &str| ClientName { domain: String::new(), ..name(&[("api_key", value)]) };
    let of = |clients| SetPlan { clients, ..to_gold() };
    let stale = ClientName { etag: "1".to_owned(), ..named(&key(1)) };
    let elsewhere = ClientName { domain: "other".to_owned(), ..named(&key(1)) };
    let revision = world.registry.revision();
    for (bad, expected, field) in [
        (of(vec![named(&key(0)), named("none")]), Code::NotFound, "set_plan.clients[1]: "),
        (of(vec![named(&key(0)), stale]), Code::Aborted, "set_plan.clients[1].etag: "),
        (of(vec![named("x"), named("x")]), Code::InvalidArgument, "set_plan.clients[1]: "),
        (of(vec![elsewhere]), Code::InvalidArgument, "set_plan.clients[0].domain: "),
        (
            SetPlan { plan: "none".to_owned(), ..to_gold() },
            Code::InvalidArgument,
            "set_plan.plan: there is no plan",
        ),
        (
            SetPlan { plan: String::new(), ..to_gold() },
            Code::InvalidArgument,
            "set_plan.plan: is required",
        ),
    ] {
        let refused = call(&replica, bad, false).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{refused}");
        assert!(refused.message().starts_with(field), "{field}: {refused}");
    }
    assert_eq!(world.registry.revision(), revision, "none of them");

    let all = vec![named(&key(0)), named("free"), named("own")];
    assert_eq!(call(&replica, of(all), false).await.unwrap().changed(), 3);
    assert_eq!(world.registry.revision(), revision + 1);
    for (value, expected) in [(key(0), 9), ("free".to_owned(), 9), ("own".to_owned(), 4)] {
        assert_eq!(replica.admitted(&[("api_key", &value)], 20).await, expected, "{value}");
    }
}

#[tokio::test]
async fn plan_reaches_every_client_while_others_change_them() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    with_plans(&here, 300).await;
    let giving = async {
        loop {
            let request = SetPlan { page_size: 20, from_plan: "silver".to_owned(), ..to_gold() };
            match call(&here, request, false).await {
                Ok(answer) if answer.changed() == 0 => return,
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
            }
        }
    };
    // The plan stays that of whoever wrote last: a label alone is changed of the record read.
    let labelling = async {
        for i in (0..300).rev() {
            let get = Action::Get(Get { client: Some(name(&[("api_key", &key(i))])) });
            let mut client = there.manage(get).await.unwrap().clients.remove(0);
            client.labels.insert("seen".to_owned(), String::new());
            let code = code(&there.upsert(vec![client]).await);
            assert!([Code::Ok, Code::Aborted].contains(&code), "{code:?}");
        }
    };
    tokio::join!(giving, labelling);
    here.follow().await;
    assert_eq!((count(&here, "gold").await, count(&here, "silver").await), (300, 0));
}

#[tokio::test]
async fn replica_that_is_cut_off_changes_nothing() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    there.stop_following();
    with_plans(&here, 3).await;
    let refused = call(&there, to_gold(), false).await;
    assert_eq!(code(&refused), Code::Unavailable);
    assert_eq!(count(&here, "silver").await, 3);
}
