//! The calls of the admin listener, beyond what becomes of a client: see `clients`.

use tollgate::edge::admin::pb::manage_clients_request::{Action, List, ResetUsage, Upsert};
use tollgate::edge::admin::pb::{Limit, Unit};
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes};
use crate::support::operator::{Operator, client, daily, name};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, request};

const POLICY: &str =
    "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 2}}\n";

#[tokio::test]
async fn zeros_are_in_answers() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let list = operator.manage(Action::List(List::default())).await.unwrap();
    assert_eq!((list.total, list.revision), (Some(0), Some(0)));
    let blocked = operator.upsert(daily("blocked", 0)).await.unwrap();
    assert_eq!(blocked.limits[0].requests_per_unit, Some(0));
    let asked = request("d", &[&[("k", "blocked")]]);
    ask(&mut tollgate.client().await, asked.clone()).await;
    let explained = operator.explain(asked).await;
    let counter = &explained.descriptors[0].counters[0];
    assert_eq!((counter.passes, counter.remaining), (Some(false), Some(0)));
    assert_eq!(explained.descriptors[0].shadow, Some(false));
    let none = operator.explain(request("x", &[&[("k", "v")]])).await;
    assert_eq!(none.domain_known, Some(false));
}

#[tokio::test]
async fn limit_without_requests_is_warned_of() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let limit = Limit { unit: Unit::Day.into(), ..Limit::default() };
    let clients = vec![daily("a", 0), client("d", ("k", "b"), limit)];
    let upsert = || Action::Upsert(Upsert { clients: clients.clone() });
    for answer in [operator.validate(upsert()).await, operator.manage(upsert()).await] {
        let warnings = answer.unwrap().warnings;
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        let expected = "upsert.clients[1].limits[0].requests_per_unit: is not set";
        assert!(warning.starts_with(expected), "{warning}");
    }
}

#[tokio::test]
async fn user_over_a_rules_limit_is_unlocked_in_memory_mode() {
    let tollgate = Options::serving(POLICY).start();
    unlocked(&Operator::of(&tollgate).await, &mut tollgate.client().await, 2).await;
}

#[tokio::test]
async fn user_over_a_rules_limit_is_unlocked_at_once_in_redis_with_denials_and_leases() {
    const LEASED: &str = "domain: d
descriptors:
  - key: k
    rate_limit:
      {unit: day, requests_per_unit: 40, algorithm: token_bucket, lease: {max_share: 0.5, ttl: 1s}}\n";
    let Some(redis) = RedisServer::start() else { return };
    for (policy, limit) in [(POLICY, 2), (LEASED, 40)] {
        let options = Options::serving(policy).redis(redis.url()).set("store.deadline=5s");
        let tollgate = options.start();
        unlocked(&Operator::of(&tollgate).await, &mut tollgate.client().await, limit).await;
    }
}

/// So many of `k=bob` pass, until the operator empties the counter.
async fn unlocked(operator: &Operator, caller: &mut Client, limit: usize) {
    let bob = request("d", &[&[("k", "bob")]]);
    for _ in 0..3 {
        let codes = codes(caller, &bob, limit + 2).await;
        let passed = codes.iter().filter(|code| **code == Code::Ok).count();
        assert_eq!((passed, codes.last()), (limit, Some(&Code::OverLimit)));
        let reset = ResetUsage { client: Some(name(daily("bob", 0))), limit: None };
        let answer = operator.manage(Action::ResetUsage(reset)).await.unwrap();
        assert_eq!((answer.counters_reset, answer.warnings), (Some(1), vec![]));
    }
}

#[tokio::test]
async fn tokens_have_names_in_the_audit_log_and_are_read_again_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.yaml");
    std::fs::write(&file, "ci: first\nalice: second\n").unwrap();
    let tollgate = Options::serving(POLICY)
        .env("TOLLGATE__ADMIN__TOKEN", "shared")
        .set(format!("admin.tokens_file={}", file.display()))
        .set("admin.listen=0.0.0.0:0")
        .start();
    let upsert = async |token: &str, requests| {
        let operator = Operator::of(&tollgate).await.with(&format!("Bearer {token}"));
        operator.upsert(daily("a", requests)).await.map_err(|status| status.code())
    };
    let bearers =
        [("first", " ci token "), ("second", " alice token "), ("shared", " operator token ")];
    for (requests, (token, who)) in (1..).zip(bearers) {
        upsert(token, requests).await.unwrap();
        let line = tollgate.wait_for_log(who);
        assert!(line.contains("tollgate::audit") && !line.contains(token), "{line}");
    }
    assert_eq!(upsert("third", 9).await.unwrap_err(), tonic::Code::Unauthenticated);

    std::fs::write(&file, "bob: third\nalice: second\n").unwrap();
    tollgate.signal("HUP");
    let line = tollgate.wait_for_log("read the admin tokens again");
    assert!(line.contains("operator, alice, bob"), "{line}");
    upsert("third", 9).await.unwrap();
    assert!(tollgate.wait_for_log(" bob token ").contains("upsert_client"));
    assert_eq!(upsert("first", 10).await.unwrap_err(), tonic::Code::Unauthenticated);

    std::fs::write(&file, "bob: [\n").unwrap();
    tollgate.signal("HUP");
    let line = tollgate.wait_for_log("the settings stay as they are");
    assert!(line.contains("admin.tokens_file") && line.contains("tokens.yaml:"), "{line}");
    upsert("third", 10).await.unwrap();
}
