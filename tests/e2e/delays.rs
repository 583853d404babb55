//! Requests that Envoy holds until their turn, with the configuration of the recipe "Delay instead
//! of deny".

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::edge::Edge;
use crate::page;
use crate::stack::alone;
use crate::support::caller::{Answer, Caller};
use crate::support::envoy;
use crate::support::tollgate::Options;
use crate::traffic::statuses;

const RECIPE: &str = "Delay instead of deny";

/// Three at once, one each 100 ms, and ten that wait.
const POLICY: &str = "
domain: jobs
descriptors:
  - key: job
    rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 10, burst: 3, max_wait: 1s}
";

const PACE: Duration = Duration::from_millis(100);

/// The most that an answer is late by on a busy machine.
const LATE: Duration = Duration::from_millis(400);

/// A request of the job, with one more header.
async fn job(caller: &Caller, job: &'static str, header: (&'static str, &'static str)) -> Answer {
    caller.get_with_all("/api/v1/jobs", &[("x-job", job), header]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_at_the_rate_of_the_limit() {
    let Some(program) = envoy::installed() else { return };
    let _alone = alone().await;
    let recipe = page::recipes().into_iter().find(|recipe| recipe.title == RECIPE).unwrap();
    let tollgate = Options::serving(POLICY).set("store.deadline=5s").start();
    let edge = Edge::start(&program, &recipe, tollgate.at.grpc).await;
    let caller = Caller::of(edge.envoy.edge);
    let none = ("x-none", "");

    let began = Instant::now();
    let answers = join_all((0..20).map(|_| job(&caller, "a", none))).await;
    let asked = answers.iter().map(|answer| answer.sent).max().unwrap() - began;
    let found = statuses(&answers);
    // Requests for what refills meanwhile pass, too.
    let more = 1 + (asked + LATE).as_millis() as usize / 100;
    assert!((13..=13 + more).contains(&found[&200]), "{found:?}");
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [200, 429]);
    let mut served: Vec<Duration> = Vec::new();
    for answer in &answers {
        match answer.status {
            200 => served.push(answer.answered - began),
            _ => assert!(answer.took() < LATE, "a denial is not held: {:?}", answer.took()),
        }
    }
    served.sort_unstable();
    for (i, after) in served.iter().enumerate() {
        let due = PACE * (i as u32).saturating_sub(2);
        assert!(*after >= due, "{i}: {after:?}, before its turn: {served:?}");
        assert!(*after <= due + asked + LATE, "{i}: {after:?}, late: {served:?}");
    }

    // The headers of clients neither delay nor spare the delay.
    let at_once = job(&caller, "b", ("x-envoy-fault-delay-request", "20000")).await;
    assert!((at_once.status, at_once.took() < LATE) == (200, true), "{at_once:?}");
    let spared = ("x-envoy-fault-delay-request-percentage", "0");
    let answers = join_all((0..13).map(|_| job(&caller, "c", spared))).await;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 13)]));
    let last = answers.iter().map(Answer::took).max().unwrap();
    assert!(last > PACE * 7, "{last:?}");
    edge.assert_nothing_was_bypassed().await;
    let stats = edge.envoy.stats().await;
    assert!(stats["http.edge.fault.delays_injected"] >= 15, "{stats:?}");
}
