//! Plans over the admin listener: a change is in force for all clients of the plan on both replicas
//! within a second.

use std::time::{Duration, Instant};

use tollgate::edge::admin::pb::{self, Client as Customer, DeletePlanRequest, Unit};
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes, metadata, with_hits};
use crate::support::operator::{Operator, daily, limit};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, request};

const POLICY: &str =
    "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 100}}\n";

const SOON: Duration = Duration::from_secs(1);

const CUSTOMERS: usize = 4_000;
const PLANS: usize = 10;

fn customer(i: usize) -> Customer {
    member(&format!("c{i}"), &format!("plan-{}", i % PLANS))
}

fn member(value: &str, plan: &str) -> Customer {
    Customer { limits: Vec::new(), plan: plan.to_owned(), ..daily(value, 0) }
}

fn asked(value: &str) -> RateLimitRequest {
    request("d", &[&[("k", value)]])
}

/// The limits in force of so many customers from `first` on, by one request.
async fn limits(client: &mut Client, first: usize) -> Vec<u32> {
    let names: Vec<String> = (first..first + 100).map(|i| format!("c{i}")).collect();
    let entries: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("k", &**name)]).collect();
    let descriptors: Vec<&[(&str, &str)]> = entries.iter().map(|entry| &entry[..]).collect();
    let answer = ask(client, with_hits(request("d", &descriptors), 0)).await;
    let limit = |status: &tollgate::edge::pb::rate_limit_response::DescriptorStatus| {
        status.current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit)
    };
    answer.statuses.iter().map(limit).collect()
}

async fn day(operator: &Operator, plan: &str, requests: u32) -> pb::Plan {
    operator.put_plan("d", plan, vec![limit(requests, Unit::Day)]).await
}

#[tokio::test]
async fn changed_plan_is_in_force_for_all_its_clients_on_both_replicas_within_a_second() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || {
        let options = Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s");
        options.set("bounds.descriptors=100").start()
    };
    let (here, there) = (start(), start());
    let operator = Operator::of(&here).await;
    let mut callers = [here.client().await, there.client().await];
    for i in 0..PLANS {
        day(&operator, &format!("plan-{i}"), 10).await;
    }
    for first in (0..CUSTOMERS).step_by(1_000) {
        operator.put((first..first + 1_000).map(customer).collect()).await.unwrap();
    }
    there.wait_for_metric("tollgate_clients", CUSTOMERS as f64);
    assert_eq!(codes(&mut callers[1], &asked("c3"), 4).await, [Code::Ok; 4]);

    let begun = Instant::now();
    let plan = day(&operator, "plan-3", 77).await;
    assert_eq!(plan.clients, Some(CUSTOMERS as u64 / PLANS as u64));
    for caller in &mut callers {
        while limits(caller, 0).await[3] != 77 {
            assert!(begun.elapsed() < SOON, "not in force in {SOON:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for first in (0..CUSTOMERS).step_by(100) {
            for (i, limit) in (first..).zip(limits(caller, first).await) {
                let expected = if i % PLANS == 3 { 77 } else { 10 };
                assert_eq!(limit, expected, "c{i}");
            }
        }
    }
    let answer = ask(&mut callers[0], with_hits(asked("c3"), 0)).await;
    assert_eq!(answer.statuses[0].limit_remaining, 73, "hits used stay used");
    let told = metadata(&answer);
    assert_eq!(told["descriptors"][0]["plan"], "plan-3", "{told}");
    let written = operator.get(customer(3)).await.unwrap();
    assert_eq!(written.etag, (PLANS + 1).to_string(), "no client was written");
}

#[tokio::test]
async fn client_of_a_plan_deleted_by_force_goes_by_the_rule_which_is_told_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Options::serving(POLICY).data(dir.path().join("data")).start();
    let mut tollgate = start();
    let operator = Operator::of(&tollgate).await;
    day(&operator, "gold", 7).await;
    operator.upsert(member("a", "gold")).await.unwrap();
    assert_eq!(tollgate.metric("tollgate_plans"), Some(1.0));

    tollgate.signal("KILL");
    tollgate.wait();
    drop(tollgate);
    let tollgate = start();
    let (operator, mut caller) = (Operator::of(&tollgate).await, tollgate.client().await);
    let in_force = |answer: &tollgate::edge::pb::RateLimitResponse| {
        answer.statuses[0].current_limit.as_ref().unwrap().requests_per_unit
    };
    assert_eq!(in_force(&ask(&mut caller, asked("a")).await), 7, "after kill -9");
    let delete = DeletePlanRequest {
        domain: "d".to_owned(),
        name: "gold".to_owned(),
        force: true,
        ..DeletePlanRequest::default()
    };
    operator.plans().delete_plan(delete).await.unwrap();
    let answer = ask(&mut caller, asked("a")).await;
    assert_eq!(in_force(&answer), 100, "the rule");
    let told = metadata(&answer);
    assert_eq!(told["descriptors"][0]["plan_missing"], "gold", "{told}");
    assert_eq!(told["descriptors"][0]["client"], serde_json::Value::Null, "{told}");
    let explained = operator.explain(asked("a")).await.descriptors.remove(0);
    assert_eq!((&*explained.decided_by, &*explained.plan_missing), ("rule", "gold"));
    assert_eq!(tollgate.metric("tollgate_plan_missing_total"), Some(1.0));
    assert_eq!(tollgate.metric("tollgate_plans"), Some(0.0));
    let log = tollgate.wait_for_log("delete_plan");
    assert!(log.contains("d|plan gold") && log.contains("\\\"requests_per_unit\\\":7"), "{log}");
}
