//! What operators change over the admin listener: in force at the next decision, on the other replica within a second,
//! and after kill -9.

use std::time::{Duration, Instant};

use tollgate::edge::admin::pb::Mode;
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes, metadata, with_hits};
use crate::support::operator::{Operator, daily, ending_in};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, request};
use crate::support::tools::wrong_clock;
use crate::support::wait::until;

const POLICY: &str =
    "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 100}}\n";

/// The time in which a change is to be in force everywhere.
const SOON: Duration = Duration::from_secs(1);

fn asked(value: &str) -> RateLimitRequest {
    request("d", &[&[("k", value)]])
}

/// The limit in force, without charging it; 0: none.
async fn limit(client: &mut Client, asked: &RateLimitRequest) -> u32 {
    let answer = ask(client, with_hits(asked.clone(), 0)).await;
    answer.statuses[0].current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit)
}

async fn soon(client: &mut Client, asked: &RateLimitRequest, expected: u32) {
    let start = Instant::now();
    while limit(client, asked).await != expected {
        assert!(start.elapsed() < SOON, "{expected} is not in force in {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the request gets this code.
async fn soon_code(client: &mut Client, asked: &RateLimitRequest, expected: Code) {
    let start = Instant::now();
    while ask(client, asked.clone()).await.overall_code() != expected {
        assert!(start.elapsed() < SOON, "no {expected:?} in {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn client_limits_the_next_decision_and_outlives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Options::serving(POLICY).data(dir.path().join("data")).start();
    let mut tollgate = start();
    let (operator, mut caller) = (Operator::of(&tollgate).await, tollgate.client().await);
    assert_eq!(limit(&mut caller, &asked("a")).await, 100);
    let stored = operator.upsert(daily("a", 2)).await.unwrap();
    assert_eq!(limit(&mut caller, &asked("a")).await, 2);
    let (ok, over) = (Code::Ok, Code::OverLimit);
    assert_eq!(codes(&mut caller, &asked("a"), 3).await, [ok, ok, over]);
    assert_eq!(limit(&mut caller, &asked("b")).await, 100);
    operator.set_mode("d", Mode::Shadow).await;
    assert_eq!(codes(&mut caller, &asked("a"), 1).await, [Code::Ok]);
    operator
        .apply(
            "{domain: e, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 7}}]}",
        )
        .await;
    let of_policy = request("e", &[&[("k", "v")]]);
    assert_eq!(limit(&mut caller, &of_policy).await, 7);

    tollgate.signal("KILL");
    tollgate.wait();
    drop(tollgate);
    let tollgate = start();
    let (operator, mut caller) = (Operator::of(&tollgate).await, tollgate.client().await);
    assert_eq!(limit(&mut caller, &asked("a")).await, 2);
    assert_eq!(limit(&mut caller, &of_policy).await, 7);
    assert_eq!(codes(&mut caller, &asked("a"), 3).await, [Code::Ok; 3], "still in shadow mode");
    let again = operator.upsert(daily("a", 3)).await.unwrap();
    assert!(again.etag.parse::<u64>().unwrap() > stored.etag.parse().unwrap());
    operator.delete(daily("a", 0)).await.unwrap();
    assert_eq!(limit(&mut caller, &asked("a")).await, 100);
    assert_eq!(tollgate.errors(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_deleted_and_what_has_expired_stays_away_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Options::serving(POLICY).data(dir.path().join("data")).start();
    let mut tollgate = start();
    let operator = Operator::of(&tollgate).await;
    for value in ["kept", "gone"] {
        operator.upsert(daily(value, 2)).await.unwrap();
    }
    operator.delete(daily("gone", 0)).await.unwrap();
    let (guest, end) = ending_in(Duration::from_secs(2), daily("guest", 2));
    operator.upsert(guest).await.unwrap();
    let of_policy = |domain: &str| request(domain, &[&[("k", "v")]]);
    for domain in ["e", "f"] {
        operator.apply(&POLICY.replace("domain: d", &format!("domain: {domain}"))).await;
    }
    operator.delete_policy("f").await;
    operator.set_mode("", Mode::Off).await;
    operator.set_mode("d", Mode::Enforce).await;

    tollgate.signal("KILL");
    tollgate.wait();
    drop(tollgate);
    tokio::time::sleep_until(end.into()).await;
    let tollgate = start();
    let (operator, mut caller) = (Operator::of(&tollgate).await, tollgate.client().await);
    for (value, expected) in [("kept", 2), ("gone", 100), ("guest", 100)] {
        assert_eq!(limit(&mut caller, &asked(value)).await, expected, "{value}");
    }
    assert_eq!(limit(&mut caller, &of_policy("e")).await, 0, "off, as all are but one");
    operator.set_mode("", Mode::Unspecified).await;
    assert_eq!(limit(&mut caller, &of_policy("e")).await, 100);
    assert_eq!(limit(&mut caller, &of_policy("f")).await, 0, "deleted");
    assert_eq!(tollgate.errors(), Vec::<String>::new());
}

#[tokio::test]
async fn changes_reach_the_other_replica_within_a_second() {
    let Some(redis) = RedisServer::start() else { return };
    // This is about what is in force, not about how quickly a busy machine answers.
    let start = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s").start();
    let (here, there) = (start(), start());
    let (operator, mut caller) = (Operator::of(&here).await, there.client().await);
    operator.upsert(daily("a", 2)).await.unwrap();
    assert_eq!(limit(&mut here.client().await, &asked("a")).await, 2, "here at once");
    soon(&mut caller, &asked("a"), 2).await;
    let (ok, over) = (Code::Ok, Code::OverLimit);
    assert_eq!(codes(&mut caller, &asked("a"), 3).await, [ok, ok, over]);
    operator.set_mode("d", Mode::Shadow).await;
    soon_code(&mut caller, &asked("a"), ok).await;
    operator.set_mode("d", Mode::Enforce).await;
    soon_code(&mut caller, &asked("a"), over).await;
    operator
        .apply(
            "{domain: e, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 7}}]}",
        )
        .await;
    soon(&mut caller, &request("e", &[&[("k", "v")]]), 7).await;
    operator.delete(daily("a", 0)).await.unwrap();
    soon(&mut caller, &asked("a"), 100).await;
    operator.upsert(daily("late", 4)).await.unwrap();
    let late = start();
    assert_eq!(limit(&mut late.client().await, &asked("late")).await, 4, "known at the start");
    for tollgate in [&here, &there, &late] {
        assert_eq!(tollgate.errors(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn change_after_one_that_redis_lost_is_in_force_and_the_lost_one_is_not() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s").start();
    let (here, there) = (start(), start());
    let operator = Operator::of(&here).await;
    let (mut near, mut far) = (here.client().await, there.client().await);
    operator.upsert(daily("kept", 1)).await.unwrap();
    let saved = redis.dump(&["tollgate:{registry}:records", "tollgate:{registry}:log"]);
    let lost = operator.upsert(daily("lost", 2)).await.unwrap();
    soon(&mut far, &asked("lost"), 2).await;
    redis.restore(&saved);
    let new = operator.upsert(daily("new", 3)).await.unwrap();
    assert_eq!(new.etag, lost.etag, "the revision is made again");
    assert_eq!(limit(&mut near, &asked("new")).await, 3, "here at once");
    assert_eq!(limit(&mut near, &asked("lost")).await, 100, "as the rule");
    soon(&mut far, &asked("new"), 3).await;
    soon(&mut far, &asked("lost"), 100).await;
    for caller in [&mut near, &mut far] {
        assert_eq!(limit(caller, &asked("kept")).await, 1);
    }
}

#[tokio::test]
async fn clock_that_is_years_ahead_ends_no_clients_time() {
    clock_of_redis_ends_a_clients_time("+5y").await;
}

#[tokio::test]
async fn clock_that_is_years_behind_keeps_no_client() {
    clock_of_redis_ends_a_clients_time("-5y").await;
}

/// On a replica whose own clock is wrong by `offset` since its start.
async fn clock_of_redis_ends_a_clients_time(offset: &str) {
    let (Some(redis), Some(clock)) = (RedisServer::start(), wrong_clock(offset)) else { return };
    let options = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s");
    let (guest, _) = ending_in(Duration::from_hours(1), daily("guest", 2));
    let (brief, end) = ending_in(Duration::from_secs(10), daily("brief", 3));
    {
        let right = options().start();
        let operator = Operator::of(&right).await;
        operator.put(vec![guest, brief]).await.unwrap();
    }
    let wrong = clock.iter().fold(options(), |options, (name, value)| options.env(name, value));
    let wrong = wrong.start();
    let mut caller = wrong.client().await;
    assert_eq!(limit(&mut caller, &asked("guest")).await, 2);
    assert_eq!(limit(&mut caller, &asked("brief")).await, 3);
    tokio::time::sleep_until(end.into()).await;
    soon(&mut caller, &asked("brief"), 100).await;
    let line = wrong.wait_for_log("expire_client");
    assert!(line.contains("k=brief"), "{line}");
    let operator = Operator::of(&wrong).await;
    operator.get(daily("guest", 0)).await.unwrap();
    assert_eq!(limit(&mut caller, &asked("guest")).await, 2);
    let (later, _) = ending_in(Duration::from_mins(1), daily("later", 4));
    operator.upsert(later).await.unwrap();
    assert_eq!(limit(&mut caller, &asked("later")).await, 4);
    let (past, _) = ending_in(Duration::ZERO, daily("past", 5));
    assert_eq!(operator.upsert(past).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(wrong.errors(), Vec::<String>::new());
}

#[tokio::test]
async fn replica_tells_how_far_it_follows_and_when_it_is_cut_off() {
    let flags = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut redis) = RedisServer::start_with(&flags) else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).start();
    let (here, there) = (start(), start());
    let operator = Operator::of(&here).await;
    operator.upsert(daily("a", 1)).await.unwrap();
    operator.upsert(daily("b", 1)).await.unwrap();
    for tollgate in [&here, &there] {
        tollgate.wait_for_metric("tollgate_registry_revision", 2.0);
        assert_eq!(tollgate.metric("tollgate_registry_up"), Some(1.0));
        assert_eq!(tollgate.metric("tollgate_clients"), Some(2.0));
    }
    redis.stop();
    there.wait_for_log("until the registry is back");
    let cut_off = async || (there.metric("tollgate_registry_up") == Some(0.0)).then_some(());
    until("the metric says so too", cut_off).await;
    // Without the store an answer names no limit, but whose it is.
    let answer = ask(&mut there.client().await, asked("a")).await;
    assert_eq!(metadata(&answer)["descriptors"][0]["client"], "k=a", "what was known is kept");
    redis.restart();
    there.wait_for_log(r#""message":"the registry is back""#);
    there.wait_for_metric("tollgate_registry_up", 1.0);
    assert_eq!(there.metric("tollgate_registry_revision"), Some(2.0));
}

#[tokio::test]
async fn applied_policy_with_open_secrets_is_warned_of() {
    const SENSITIVE: &str = "{domain: e, descriptors: [{key: k, sensitive: true, rate_limit: \
        {unit: day, requests_per_unit: 7}}]}";
    const WARNING: &str = "sensitive_key is not set";
    let open = Options::serving(POLICY).start();
    let policy = Operator::of(&open).await.apply(SENSITIVE).await;
    assert!(policy.warnings.iter().any(|warning| warning.contains(WARNING)), "{policy:?}");
    open.wait_for_log(WARNING);
    let keyed = Options::serving(POLICY).config("sensitive_key: 0123456789abcdef\n").start();
    let policy = Operator::of(&keyed).await.apply(SENSITIVE).await;
    assert_eq!(policy.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn token_opens_the_listener_beyond_loopback_and_nothing_else_does() {
    let tollgate = Options::serving(POLICY)
        .env("TOLLGATE__ADMIN__TOKEN", "s3cret")
        .set("admin.listen=0.0.0.0:0")
        .start();
    for wrong in [None, Some("Bearer s3cre"), Some("s3cret")] {
        let operator = Operator::of(&tollgate).await;
        let operator = wrong.into_iter().fold(operator, Operator::with);
        let refused = operator.upsert(daily("a", 1)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    }
    let mut caller = tollgate.client().await;
    assert_eq!(limit(&mut caller, &asked("a")).await, 100);
    Operator::of(&tollgate).await.with("Bearer s3cret").upsert(daily("a", 1)).await.unwrap();
    assert_eq!(limit(&mut caller, &asked("a")).await, 1);
    let line = tollgate.wait_for_log("tollgate::audit");
    assert!(!line.contains("s3cret"), "{line}");
}
