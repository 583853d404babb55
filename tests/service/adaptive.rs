//! Rules that adapt, over the real binary: reports turn them down and up again, on all replicas; an
//! operator goes first; a replica that controls may die or stand still.

use std::time::Duration;

use tollgate::edge::admin::pb as admin;
use tollgate::edge::admin::pb::scale::Source;
use tollgate::edge::pb;
use tollgate::edge::pb::tollgate::v1::hold_service_client::HoldServiceClient;
use tollgate::edge::pb::tollgate::v1::{Outcome, ReportRequest};
use tonic::Code;
use tonic::transport::Channel;

use crate::support::grpc::{ask, metadata};
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, descriptor, request};
use crate::support::wait::until;

const POLICY: &str = "
domain: d
descriptors:
  - key: backend
    rate_limit: {algorithm: concurrency, max: 1000, ttl: 10m}
    adaptive: {target: {p95: 300ms, errors: 10%}, min: 5%}
  - key: watched
    rate_limit: {unit: second, requests_per_unit: 1000}
    adaptive: {target: {p95: 300ms}, shadow: true}
  - key: plain
    rate_limit: {unit: second, requests_per_unit: 1000}
";

/// Somebody who asks nothing and reports much.
struct Reporter(HoldServiceClient<Channel>);

impl Reporter {
    async fn of(tollgate: &Tollgate) -> Self {
        Self(HoldServiceClient::new(Tollgate::channel(tollgate.at.grpc).await))
    }

    async fn report(&mut self, rule: &str, code: u32, latency_ms: u64) {
        let outcome = Outcome { code: Some(code), latency_ms: Some(latency_ms), count: Some(100) };
        let (domain, rule) = ("d".to_owned(), rule.to_owned());
        let request = ReportRequest { domain, rule, outcomes: vec![outcome] };
        self.0.report(request).await.unwrap();
    }

    /// Reports until `holds`.
    async fn reports_until(
        &mut self,
        (rule, code, latency_ms): (&str, u32, u64),
        what: &str,
        holds: impl AsyncFn() -> bool,
    ) {
        let this = tokio::sync::Mutex::new(self);
        until(what, async || {
            this.lock().await.report(rule, code, latency_ms).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            holds().await.then_some(())
        })
        .await;
    }
}

async fn scales(operator: &Operator) -> Vec<admin::Scale> {
    let all = admin::ListScalesRequest { domain: String::new() };
    operator.policies().list_scales(all).await.unwrap().into_inner().scales
}

/// The percent of the rule that its controller says, and whether it is in force.
async fn controlled(operator: &Operator, rule: &str) -> Option<(f64, bool)> {
    let scales = scales(operator).await;
    let of = scales.iter().find(|s| s.rule == rule && s.source() == Source::Controller)?;
    Some((of.percent, of.in_force()))
}

/// The slots of the rule.
async fn most(tollgate: &Tollgate) -> u32 {
    let answer = ask(&mut tollgate.client().await, request("d", &[&[("backend", "b")]])).await;
    answer.statuses[0].current_limit.as_ref().unwrap().requests_per_unit
}

const FAILS: (&str, u32, u64) = ("backend", 503, 10);
const WELL: (&str, u32, u64) = ("backend", 200, 10);

#[tokio::test]
async fn reports_turn_a_rule_down_to_its_minimum_and_up_again() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let mut reporter = Reporter::of(&tollgate).await;
    reporter
        .reports_until(FAILS, "the minimum is reached", async || {
            controlled(&operator, "backend").await == Some((5.0, true))
        })
        .await;
    assert_eq!(most(&tollgate).await, 50);
    let shown = tollgate.metric(r#"tollgate_scale{domain="d",rule="backend"}"#);
    assert_eq!(shown, Some(0.05));
    let line = tollgate.wait_for_log("the rule is turned down");
    assert!(line.contains("backend") && line.contains("more errors than the target"), "{line}");
    let down = scales(&operator).await.remove(0);
    assert_eq!(down.reason, "more errors than the target");
    assert!(down.expires_at.is_some());

    let scale = admin::SetScaleRequest {
        domain: "d".to_owned(),
        rule: "backend".to_owned(),
        percent: 80.0,
        ..Default::default()
    };
    operator.policies().set_scale(scale.clone()).await.unwrap();
    assert_eq!(most(&tollgate).await, 800, "an operator goes first");
    assert!(!controlled(&operator, "backend").await.unwrap().1);
    let back = admin::SetScaleRequest { percent: 0.0, ..scale };
    operator.policies().set_scale(back).await.unwrap();
    reporter
        .reports_until(WELL, "it goes up", async || {
            controlled(&operator, "backend").await.is_some_and(|(percent, _)| percent > 15.0)
        })
        .await;
    assert!(most(&tollgate).await > 150);
}

#[tokio::test]
async fn rule_in_shadow_mode_shows_what_it_would_do() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let mut reporter = Reporter::of(&tollgate).await;
    let slow = ("watched", 200, 301);
    reporter
        .reports_until(slow, "it would be turned down", async || {
            controlled(&operator, "watched").await.is_some()
        })
        .await;
    let (percent, in_force) = controlled(&operator, "watched").await.unwrap();
    assert!(percent < 100.0 && !in_force, "{percent}");
    let answer = ask(&mut tollgate.client().await, request("d", &[&[("watched", "v")]])).await;
    assert_eq!(answer.statuses[0].current_limit.as_ref().unwrap().requests_per_unit, 1_000);
}

#[tokio::test]
async fn report_of_what_does_not_adapt_is_refused() {
    let tollgate = Options::serving(POLICY).start();
    let mut reporter = Reporter::of(&tollgate).await;
    let outcomes = vec![Outcome::default(); 1_001];
    for (domain, rule, outcomes, text) in [
        ("d", "plain", Vec::new(), "rule: is no rule of the domain that adapts"),
        ("e", "backend", Vec::new(), "rule: is no rule"),
        ("d", "backend", outcomes, "outcomes: has 1001 items, at most 1000"),
    ] {
        let (domain, rule) = (domain.to_owned(), rule.to_owned());
        let refused = reporter.0.report(ReportRequest { domain, rule, outcomes }).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(text), "{}", refused.message());
    }
}

/// Admitted by a slot, and reported by the handle: Envoy's way.
#[tokio::test]
async fn ends_of_requests_are_reports_and_count_once() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let mut client = tollgate.client().await;
    until("failed requests turn it down", async || {
        let answer = ask(&mut client, request("d", &[&[("backend", "b")]])).await;
        if answer.overall_code() != pb::rate_limit_response::Code::Ok {
            return Some(());
        }
        let handle = metadata(&answer)["hold"].as_str().unwrap().to_owned();
        let hold = ("hold", &*handle);
        let with = |entries: &[(&str, &str)], hits| pb::RateLimitDescriptor {
            hits_addend: hits,
            ..descriptor(entries)
        };
        let end = pb::RateLimitRequest {
            domain: b"d".to_vec().into(),
            descriptors: vec![
                with(&[("backend", "b"), hold], None),
                with(&[("report", "code"), hold], Some(503)),
                with(&[("report", "ms"), hold], Some(10)),
            ],
            hits_addend: 0,
        };
        for _ in 0..2 {
            assert_eq!(ask(&mut client, end.clone()).await.statuses.len(), 3);
        }
        controlled(&operator, "backend").await.map(|_| ())
    })
    .await;
    assert!(controlled(&operator, "backend").await.unwrap().0 < 100.0);
    assert_eq!(tollgate.errors(), [""; 0]);
}

/// Ten seconds of admissions without a word about them.
#[tokio::test]
async fn rule_without_reports_stays_and_says_so() {
    let tollgate = Options::serving(POLICY).start();
    let mut client = tollgate.client().await;
    until("it is known to be blind", async || {
        ask(&mut client, request("d", &[&[("watched", "v")]])).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let blind = tollgate.metric(r#"tollgate_adaptive_blind{domain="d",rule="watched"}"#);
        (blind == Some(1.0)).then_some(())
    })
    .await;
    let line = tollgate.wait_for_log("the rule does not adapt");
    assert!(line.contains("watched"), "{line}");
    assert!(scales(&Operator::of(&tollgate).await).await.is_empty());
}

const CONTROLS: &str = "this replica controls the rules that adapt";

fn controls(tollgate: &Tollgate) -> usize {
    tollgate.log().iter().filter(|line| line.contains(CONTROLS)).count()
}

/// Both replicas get reports; one of them controls, and is in force on both.
#[tokio::test]
async fn replicas_share_one_controller_that_outlives_its_replica() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s").start();
    let mut replicas = vec![start(), start()];
    until("one of them controls", async || {
        (replicas.iter().map(controls).sum::<usize>() == 1).then_some(())
    })
    .await;
    let chief = replicas.iter().position(|replica| controls(replica) == 1).unwrap();
    replicas.swap(0, chief);
    let operator = Operator::of(&replicas[1]).await;
    // The reports come to the replica that does not control.
    let mut reporter = Reporter::of(&replicas[1]).await;
    reporter
        .reports_until(FAILS, "it is turned down", async || {
            controlled(&operator, "backend").await.is_some_and(|(percent, _)| percent <= 50.0)
        })
        .await;
    until("it is in force on both", async || {
        let both = [most(&replicas[0]).await, most(&replicas[1]).await];
        (both[0] == both[1] && both[0] <= 500).then_some(())
    })
    .await;

    // It stands still, and another takes over from where it was.
    replicas[0].signal("STOP");
    until("the other controls", async || (controls(&replicas[1]) == 1).then_some(())).await;
    let taken_over = controlled(&operator, "backend").await.unwrap().0;
    assert!(taken_over <= 50.0, "{taken_over}");
    replicas[0].signal("CONT");
    reporter
        .reports_until(FAILS, "it goes on to the minimum", async || {
            controlled(&operator, "backend").await == Some((5.0, true))
        })
        .await;
    assert_eq!([controls(&replicas[0]), controls(&replicas[1])], [1, 1], "nobody took it back");
    until("the one that stood still follows", async || {
        (most(&replicas[0]).await == 50).then_some(())
    })
    .await;

    // It is killed, and the first takes it back.
    let mut killed = replicas.remove(1);
    killed.signal("KILL");
    killed.wait();
    until("the first controls again", async || (controls(&replicas[0]) == 2).then_some(())).await;
    let operator = Operator::of(&replicas[0]).await;
    let mut reporter = Reporter::of(&replicas[0]).await;
    reporter
        .reports_until(WELL, "it goes up from where it was", async || {
            controlled(&operator, "backend").await.is_some_and(|(percent, _)| percent > 8.0)
        })
        .await;
    let (percent, _) = controlled(&operator, "backend").await.unwrap();
    assert!(percent < 30.0, "{percent}");
}
