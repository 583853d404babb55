//! A registry that takes no writes: noticed before an operator needs it, and the kill switch works.
//! Changes without an answer are in the audit log.

use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate::edge::admin::pb::{Mode, SetModeRequest, SetModeResponse};
use tollgate::edge::pb::rate_limit_response::Code as Answer;
use tonic::Code;

use crate::support::grpc::codes;
use crate::support::operator::{Operator, daily};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const BLOCKED: &str =
    "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 0}}]}";

const WRITABLE: &str = "tollgate_registry_writable";

async fn set_mode(operator: &Operator, mode: Mode) -> SetModeResponse {
    let message = SetModeRequest { domain: "d".to_owned(), mode: mode.into() };
    operator.policies().set_mode(message).await.unwrap().into_inner()
}

async fn answer(tollgate: &Tollgate) -> Answer {
    codes(&mut tollgate.client().await, &request("d", &[&[("k", "v")]]), 1).await[0]
}

fn warnings(tollgate: &Tollgate) -> usize {
    tollgate.log().iter().filter(|line| line.contains("cannot be stored")).count()
}

#[tokio::test]
async fn directory_that_cannot_be_written_is_reported_and_the_kill_switch_works() {
    let parent = tempfile::tempdir().unwrap();
    // A directory that is a file: refused to root too.
    let occupied = parent.path().join("occupied");
    std::fs::write(&occupied, "").unwrap();
    let data = occupied.join("data");
    let tollgate = Options::serving(BLOCKED).data(&data).start();
    let warning = tollgate.wait_for_log("cannot be stored");
    assert!(warning.contains("registry.redb") && warning.contains("WARN"), "{warning}");
    assert_eq!(tollgate.metric(WRITABLE), Some(0.0));

    let operator = Operator::of(&tollgate).await;
    let refused = operator.upsert(daily("acme", 5)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(answer(&tollgate).await, Answer::OverLimit);
    let set = set_mode(&operator, Mode::Off).await;
    assert_eq!(set.mode(), Mode::Off);
    let [warning] = set.warnings.as_slice() else { panic!("{set:?}") };
    assert!(warning.starts_with("in force on this replica alone"), "{warning}");
    assert_eq!(answer(&tollgate).await, Answer::Ok);
    assert!(tollgate.wait_for_log(r#""outcome":"in memory""#).contains("set_mode"));
    assert_eq!(warnings(&tollgate), 1, "one line for a change of state");

    std::fs::remove_file(&occupied).unwrap();
    tollgate.wait_for_metric(WRITABLE, 1.0);
    assert!(tollgate.wait_for_log("store_mode").contains("by settings"));
    drop(tollgate);
    let tollgate = Options::serving(BLOCKED).data(&data).start();
    assert_eq!(answer(&tollgate).await, Answer::Ok, "stored");
    tollgate.wait_for_metric(WRITABLE, 1.0);
    assert_eq!(warnings(&tollgate), 0);
}

#[tokio::test]
async fn redis_without_memory_is_reported() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::default().redis(redis.url()).start();
    tollgate.wait_for_metric(WRITABLE, 1.0);
    redis.fill();
    let operator = Operator::of(&tollgate).await;
    operator.upsert(daily("acme", 5)).await.unwrap_err();
    assert!(tollgate.wait_for_log("cannot be stored").contains("OOM"));
    assert_eq!(tollgate.metric(WRITABLE), Some(0.0));
    assert_eq!(tollgate.metric("tollgate_registry_up"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_switch_works_at_once_while_redis_is_frozen_and_is_stored_later() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(BLOCKED).redis(redis.url()).start();
    let (here, there) = (start(), start());
    let operator = Operator::of(&here).await;
    redis.pause();
    let begun = Instant::now();
    let setting = tokio::spawn(async move { set_mode(&operator, Mode::Off).await });
    while answer(&here).await != Answer::Ok {
        assert!(begun.elapsed() < Duration::from_secs(2), "not in force while the call waits");
    }
    let set = setting.await.unwrap();
    assert_eq!((set.mode(), set.warnings.len()), (Mode::Off, 1));
    redis.resume();
    let late = Instant::now() + Duration::from_secs(20);
    while answer(&there).await != Answer::Ok {
        assert!(Instant::now() < late, "not stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn change_without_an_answer_is_in_the_audit_log() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::default().redis(redis.url()).start();
    let operator = Operator::of(&tollgate).await;
    operator.upsert(daily("first", 5)).await.unwrap();
    let unknown = |what: &str| {
        let found = || {
            let lines = tollgate.log();
            let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            parsed.into_iter().find(|l| l["what"] == what && l["outcome"] == "unknown")
        };
        tollgate.wait_for(what, || found().is_some());
        found().unwrap()
    };
    redis.pause();
    let lost = operator.upsert(daily("lost", 5)).await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    let line = unknown("d|k=lost");
    assert_eq!((&line["action"], &line["level"]), (&"upsert_client".into(), &"WARN".into()));
    assert!(line["after"].as_str().unwrap().contains("requests_per_unit"), "{line}");
    redis.resume();
    // It took effect all the same.
    tollgate.wait_for_metric("tollgate_clients", 2.0);

    // A caller that gives up leaves a line, too.
    redis.pause();
    let gone = operator.upsert(daily("gone", 5));
    tokio::time::timeout(Duration::from_millis(200), gone).await.unwrap_err();
    unknown("d|k=gone");
    redis.resume();
}
