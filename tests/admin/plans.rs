//! Plans: the limits that clients get by them, their life, and what becomes of their clients.

use tollgate::control::sweep::end_plans;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Get, List};
use tollgate::edge::admin::pb::{
    Algorithm, Client, DeletePlanRequest, DeletePlanResponse, GetPlanRequest, Limit,
    ListPlansRequest, Plan, Unit, UpsertPlanRequest, UpsertPlanResponse,
};
use tollgate::limiter::status::Decision;
use tonic::{Code, Status};

use crate::replica::{Replica, World, client, code, name, per_minute, request};

const ACME: &[(&str, &str)] = &[("api_key", "acme")];

pub fn plan(name: &str, limits: Vec<Limit>) -> Plan {
    let (domain, name) = ("edge".to_owned(), name.to_owned());
    Plan { domain, name, limits, ..Plan::default() }
}

/// A client of the plan, without limits of its own.
pub fn member(pairs: &[(&str, &str)], plan: &str) -> Client {
    Client { plan: plan.to_owned(), ..client(pairs, Vec::new()) }
}

fn per_day(requests_per_unit: u32) -> Limit {
    Limit { unit: Unit::Day.into(), ..per_minute(requests_per_unit) }
}

pub async fn put(replica: &Replica, plan: Plan) -> Result<UpsertPlanResponse, Status> {
    let request = UpsertPlanRequest { plan: Some(plan), validate_only: false };
    Ok(replica.plans.clone().upsert_plan(request).await?.into_inner())
}

pub fn deletion(name: &str) -> DeletePlanRequest {
    let (domain, name) = ("edge".to_owned(), name.to_owned());
    DeletePlanRequest { domain, name, ..DeletePlanRequest::default() }
}

pub async fn delete(
    replica: &Replica,
    request: DeletePlanRequest,
) -> Result<DeletePlanResponse, Status> {
    Ok(replica.plans.clone().delete_plan(request).await?.into_inner())
}

/// The limits that a request of acme meets, without a charge that matters.
async fn decided(replica: &Replica) -> Decision {
    replica.decide(&request("edge", &[ACME])).await
}

#[tokio::test]
async fn client_gets_the_limits_of_its_plan_and_each_change_of_them_on_every_replica() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    let first = put(&here, plan("gold", vec![per_minute(8)])).await.unwrap().plan.unwrap();
    assert_eq!((&*first.etag, first.clients), ("1", Some(0)));
    here.upsert(vec![member(ACME, "gold")]).await.unwrap();
    there.follow().await;
    assert_eq!(here.admitted(ACME, 20).await, 8);

    let larger = put(&here, plan("gold", vec![per_minute(12)])).await.unwrap();
    assert_eq!((larger.revision(), larger.plan.unwrap().clients), (3, Some(1)));
    there.follow().await;
    assert_eq!(there.admitted(ACME, 20).await, 4, "eight of the twelve are used");
    let status = decided(&there).await.statuses.remove(0);
    assert_eq!(status.client.unwrap().revision, 2, "the client was not written");
    assert_eq!(&*status.plan.in_force().unwrap().name, "gold");
    assert_eq!(here.admitted(&[("api_key", "other")], 20).await, 3, "the rule");
}

#[tokio::test]
async fn own_limits_replace_those_of_the_plan_by_algorithm_and_period() {
    let world = World::new();
    let replica = world.replica().await;
    let fixed = |limit: Limit| Limit { algorithm: Algorithm::FixedWindow.into(), ..limit };
    let of_plan = vec![fixed(per_minute(5)), per_day(7)];
    put(&replica, plan("gold", of_plan)).await.unwrap();
    for (own, expected, why) in [
        (vec![], 5, "all of the plan"),
        (vec![fixed(per_minute(6))], 6, "the minute is replaced"),
        (vec![per_minute(6)], 6, "an algorithm that is left open equals any"),
        (vec![fixed(per_minute(20))], 7, "the day stays"),
        (vec![fixed(per_day(9)), fixed(per_minute(20))], 9, "both are replaced"),
    ] {
        world.advance(10 * 86_400);
        replica.upsert(vec![Client { limits: own, ..member(ACME, "gold") }]).await.unwrap();
        assert_eq!(replica.admitted(ACME, 30).await, expected, "{why}");
    }
}

#[tokio::test]
async fn metadata_is_that_of_the_client_then_of_the_plan() {
    let world = World::new();
    let replica = world.replica().await;
    let tier = |tier: &str| {
        let kind = Some(prost_types::value::Kind::StringValue(tier.to_owned()));
        let fields = [("tier".to_owned(), prost_types::Value { kind })].into();
        Some(prost_types::Struct { fields })
    };
    let gold = Plan { metadata: tier("plan"), ..plan("gold", vec![per_minute(9)]) };
    let stored = put(&replica, gold.clone()).await.unwrap().plan.unwrap();
    assert_eq!(stored.metadata, tier("plan"));
    replica.upsert(vec![member(ACME, "gold")]).await.unwrap();
    let status = decided(&replica).await.statuses.remove(0);
    let of_plan = status.plan.in_force().unwrap().metadata.as_ref().unwrap();
    assert_eq!(of_plan["tier"], "plan");

    let again = put(&replica, gold.clone()).await.unwrap();
    assert!(again.unchanged);
    assert_eq!(again.plan.unwrap().etag, "1");
    let stale = put(&replica, Plan { etag: "9".to_owned(), ..gold.clone() }).await;
    assert_eq!(code(&stale), Code::Aborted);
    let named = GetPlanRequest { domain: "edge".to_owned(), name: "gold".to_owned() };
    let read = replica.plans.clone().get_plan(named).await.unwrap().into_inner();
    assert_eq!((read.limits, read.clients), (gold.limits, Some(1)));
}

#[tokio::test]
async fn plan_that_does_not_exist_is_refused_by_its_field() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    let unknown = here.upsert(vec![member(ACME, "gold")]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let text = r#"upsert.clients[0].plan: there is no plan "gold" in the domain "edge""#;
    assert_eq!(unknown.message(), text);
    put(&here, plan("gold", vec![per_minute(1)])).await.unwrap();
    there.stop_following();
    there.upsert(vec![member(ACME, "gold")]).await.unwrap();

    let then = Client { plan_then: "x".to_owned(), ..member(ACME, "gold") };
    let trial = Client { plan_expires_at: Some(world.time_in(9)), ..then.clone() };
    let past = Client { plan_expires_at: Some(world.time_in(0)), ..member(ACME, "gold") };
    let alone = Client { plan_then: "gold".to_owned(), ..client(ACME, vec![per_minute(1)]) };
    let unlimited = vec![Limit { unlimited: true, ..Limit::default() }];
    for (bad, field) in [
        (trial, "plan_then: there is no plan"),
        (then, "plan_then: means nothing without plan_expires_at"),
        (past, "plan_expires_at: must be in the future"),
        (alone, "plan_then: means nothing without plan"),
        (member(ACME, "no name"), "plan: is no name of a plan"),
        (Client { limits: unlimited, ..member(ACME, "gold") }, "limits: means that nothing"),
        (client(ACME, Vec::new()), "limits: found 0"),
    ] {
        let refused = here.upsert(vec![bad]).await.unwrap_err();
        let expected = format!("upsert.clients[0].{field}");
        assert!(refused.message().starts_with(&expected), "{expected}: {refused}");
    }
    for (bad, field) in [
        (plan("", vec![per_minute(1)]), "plan.name: must not be empty"),
        (plan("gold", Vec::new()), "plan.limits: found 0"),
        (plan("gold", vec![per_minute(1), per_minute(2)]), "plan.limits[1]: is over the same"),
    ] {
        let refused = put(&here, bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{field}: {refused}");
    }
}

#[tokio::test]
async fn plan_with_clients_is_deleted_by_force_alone_and_the_rule_limits_them_then() {
    let world = World::new();
    let replica = world.replica().await;
    put(&replica, plan("gold", vec![per_minute(8), per_day(9)])).await.unwrap();
    let own = client(&[("api_key", "own")], vec![per_minute(5)]);
    let clients = vec![member(ACME, "gold"), Client { plan: "gold".to_owned(), ..own }];
    replica.upsert(clients).await.unwrap();
    let refused = delete(&replica, deletion("gold")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("has 2 clients"), "{refused}");
    let forced = DeletePlanRequest { force: true, ..deletion("gold") };
    let stale = DeletePlanRequest { etag: "7".to_owned(), ..forced.clone() };
    assert_eq!(code(&delete(&replica, stale).await), Code::Aborted);
    let dry = DeletePlanRequest { validate_only: true, ..forced.clone() };
    assert_eq!(delete(&replica, dry).await.unwrap().clients, 2);
    assert_eq!(replica.admitted(ACME, 20).await, 8, "the plan is still there");

    let done = delete(&replica, forced.clone()).await.unwrap();
    assert_eq!((done.clients, done.revision()), (2, 3));
    assert_eq!(code(&delete(&replica, forced).await), Code::NotFound);
    world.advance(60);
    assert_eq!(replica.admitted(ACME, 20).await, 3, "the rule");
    let status = decided(&replica).await.statuses.remove(0);
    assert!(status.client.is_none());
    assert_eq!(status.plan.missing(), Some("gold"));
    assert_eq!(replica.admitted(&[("api_key", "own")], 20).await, 5, "its own limits");
    let counted = replica.shared.metrics.registry.plan_missing.get();
    assert_eq!(counted, 4 + 1 + 6, "a descriptor each");

    let other = replica.upsert(vec![member(&[("api_key", "new")], "gold")]).await;
    assert_eq!(code(&other), Code::InvalidArgument);
    let kept = replica.upsert(vec![member(ACME, "gold")]).await;
    assert_eq!(code(&kept), Code::Ok, "it has the plan already");
    put(&replica, plan("gold", vec![per_minute(8)])).await.unwrap();
    world.advance(60);
    assert_eq!(replica.admitted(ACME, 20).await, 8, "the plan is back");
}

#[tokio::test]
async fn trial_ends_by_the_clock_and_its_record_follows() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    put(&here, plan("gold", vec![per_minute(9)])).await.unwrap();
    put(&here, plan("silver", vec![per_minute(5)])).await.unwrap();
    let plan_expires_at = Some(world.time_in(600));
    let trial = Client { plan_expires_at, plan_then: "silver".to_owned(), ..member(ACME, "gold") };
    let bare = &[("api_key", "bare")];
    let to_rule = Client { plan_expires_at, ..member(bare, "gold") };
    let stored = here.upsert(vec![trial.clone(), to_rule]).await.unwrap().clients.remove(0);
    let shown = (stored.plan, stored.plan_expires_at, stored.plan_then);
    assert_eq!(shown, (trial.plan, trial.plan_expires_at, trial.plan_then));
    there.follow().await;
    assert_eq!((there.admitted(ACME, 20).await, there.admitted(bare, 20).await), (9, 9));
    assert_eq!(code(&delete(&here, deletion("silver")).await), Code::FailedPrecondition);
    assert_eq!(end_plans(&here.control).await.unwrap(), 0);

    world.advance(600);
    assert_eq!((there.admitted(ACME, 20).await, there.admitted(bare, 20).await), (5, 3));
    assert!(decided(&there).await.statuses[0].plan.missing().is_none());
    let of_plan = |plan: &str| {
        let plan = plan.to_owned();
        Action::List(List { plan, ..List::default() })
    };
    let listed = |plan: &'static str| {
        let there = &there;
        async move { there.manage(of_plan(plan)).await.unwrap().clients.len() }
    };
    assert_eq!((listed("gold").await, listed("silver").await), (0, 1), "by the plan it has now");

    assert_eq!(end_plans(&here.control).await.unwrap(), 2);
    there.follow().await;
    let get = |pairs| Action::Get(Get { client: Some(name(pairs)) });
    let acme = there.manage(get(ACME)).await.unwrap().clients.remove(0);
    assert_eq!((&*acme.plan, acme.plan_expires_at, &*acme.etag), ("silver", None, "4"));
    assert_eq!(code(&there.manage(get(bare)).await), Code::NotFound, "nothing is left of it");
    assert_eq!(end_plans(&here.control).await.unwrap(), 0);
    assert_eq!(delete(&there, deletion("gold")).await.unwrap().clients, 0);
}

#[tokio::test]
async fn plans_are_listed_by_pages_and_each_domain_has_its_own() {
    let world = World::new();
    let replica = world.replica().await;
    for i in 0..5 {
        put(&replica, plan(&format!("p{i}"), vec![per_minute(i)])).await.unwrap();
    }
    let other = Plan { domain: "other".to_owned(), ..plan("p0", vec![per_minute(77)]) };
    put(&replica, other).await.unwrap();
    let mut names = Vec::new();
    let mut list = ListPlansRequest { page_size: 2, ..ListPlansRequest::default() };
    loop {
        let page = replica.plans.clone().list_plans(list.clone()).await.unwrap().into_inner();
        names.extend(page.plans.into_iter().map(|plan| format!("{}/{}", plan.domain, plan.name)));
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["edge/p0", "edge/p1", "edge/p2", "edge/p3", "edge/p4", "other/p0"]);
    list.page_token = "00".to_owned();
    assert_eq!(code(&replica.plans.clone().list_plans(list).await), Code::InvalidArgument);
}
