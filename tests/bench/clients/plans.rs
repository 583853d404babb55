//! Clients on ten plans: how soon a changed plan is in force for all of its clients on both replicas.

use std::time::{Duration, Instant};

use tollgate::edge::admin::pb::{Client, Unit};
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::Channel;

use crate::support::operator::{Operator, limit};
use crate::support::tollgate::{Tollgate, request};
use crate::{DOMAIN, id};

const PLANS: usize = 10;

/// The plan that is changed, and its limits before and after.
const CHANGED: usize = 3;
const BEFORE: u32 = 60;
const AFTER: u32 = 77;

/// The clients that are asked about after a change.
const ASKED: usize = 1_000;

fn name(plan: usize) -> String {
    format!("plan-{plan}")
}

/// The `i`-th client, on its plan and without limits of its own.
pub fn client(i: usize) -> Client {
    Client { limits: Vec::new(), plan: name(i % PLANS), ..super::client(i, BEFORE) }
}

/// Makes the plans.
pub async fn make(tollgate: &Tollgate) {
    let operator = Operator::of(tollgate).await;
    for plan in 0..PLANS {
        operator.put_plan(DOMAIN, &name(plan), vec![limit(BEFORE, Unit::Minute)]).await;
    }
}

/// Changes a plan; how long until clients of it, anywhere among `count`, have it on both replicas.
pub async fn change(told: &Tollgate, follower: &Tollgate, count: usize) -> Duration {
    let operator = Operator::of(told).await;
    let mut callers = Vec::new();
    for tollgate in [told, follower] {
        callers.push(RateLimitServiceClient::new(Tollgate::channel(tollgate.at.grpc).await));
    }
    let begin = Instant::now();
    let limits = vec![limit(AFTER, Unit::Minute)];
    let plan = operator.put_plan(DOMAIN, &name(CHANGED), limits).await;
    assert_eq!(plan.clients, Some((count / PLANS) as u64));
    for caller in &mut callers {
        while in_force(caller, CHANGED).await != AFTER {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let took = begin.elapsed();
    for caller in &mut callers {
        for _ in 0..ASKED {
            let i = fastrand::usize(..count);
            let expected = if i % PLANS == CHANGED { AFTER } else { BEFORE };
            assert_eq!(in_force(caller, i).await, expected, "{}", id(i));
        }
    }
    took
}

/// The limit of the `i`-th client.
async fn in_force(caller: &mut RateLimitServiceClient<Channel>, i: usize) -> u32 {
    let asked = request(DOMAIN, &[&[("client_id", &id(i))]]);
    let answer = caller.should_rate_limit(asked).await.unwrap().into_inner();
    answer.statuses[0].current_limit.as_ref().unwrap().requests_per_unit
}
