//! Clients with sensitive values: stored and listed by hashes, found by the values.

use tollgate::edge::admin::pb::manage_clients_request::{Action, List, ResetUsage};
use tollgate::edge::admin::pb::{Client, ClientName, Entry, Unit};
use tollgate::edge::pb::rate_limit_response::Code as Answer;
use tonic::Code;

use crate::support::grpc::codes;
use crate::support::operator::{Operator, client, limit, name};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const SECRET: &str = "the-secret-of-alice";

const MARKED: &str = "domain: d\ndescriptors:
  - {key: k, sensitive: true, rate_limit: {unit: day, requests_per_unit: 100}}\n";

const OPEN: &str = "domain: d\ndescriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 100}}\n";

fn options(policy: &str) -> Options {
    Options::serving(policy).env("TOLLGATE__SENSITIVE_KEY", "pepper")
}

fn secret(requests: u32) -> Client {
    client("d", ("k", SECRET), limit(requests, Unit::Day))
}

async fn admitted(tollgate: &Tollgate, value: &str) -> usize {
    let asked = request("d", &[&[("k", value)]]);
    let answers = codes(&mut tollgate.client().await, &asked, 8).await;
    answers.into_iter().filter(|code| *code == Answer::Ok).count()
}

async fn list(operator: &Operator) -> Vec<Client> {
    operator.manage(Action::List(List::default())).await.unwrap().clients
}

/// The only entry of the only client.
async fn listed(operator: &Operator) -> Entry {
    let clients = list(operator).await;
    let [client] = clients.as_slice() else { panic!("{clients:?}") };
    client.entries[0].clone()
}

fn is_hash(entry: &Entry) -> bool {
    entry.hashed && entry.value.len() == 32 && !entry.value.contains("hunter")
}

/// Everything that an operator does by the value.
async fn works_by_value(tollgate: &Tollgate) {
    let operator = Operator::of(tollgate).await;
    operator.upsert(secret(3)).await.unwrap();
    assert_eq!(admitted(tollgate, SECRET).await, 3);
    let shown = listed(&operator).await;
    assert!(is_hash(&shown), "{shown:?}");
    let got = operator.get(secret(0)).await.unwrap();
    assert_eq!((&got.entries[0], got.limits[0].requests_per_unit), (&shown, Some(3)));

    let reset = ResetUsage { client: Some(name(secret(0))), limit: None };
    let reset = operator.manage(Action::ResetUsage(reset)).await.unwrap();
    assert_eq!(reset.counters_reset, Some(1));
    let hashed = ClientName { entries: vec![shown.clone()], ..name(secret(0)) };
    let reset = ResetUsage { client: Some(hashed), limit: None };
    let refused = operator.manage(Action::ResetUsage(reset)).await.unwrap_err();
    assert!(refused.message().starts_with("reset_usage.client.entries: "), "{refused}");
    assert_eq!(admitted(tollgate, SECRET).await, 3);
    // The hash as a value is another client.
    assert_eq!(admitted(tollgate, &shown.value).await, 8);

    // What a list shows may be stored again, and is the same client.
    let mut restored = list(&operator).await.remove(0);
    restored.etag.clear();
    restored.limits[0].requests_per_unit = Some(5);
    operator.upsert(restored).await.unwrap();
    assert_eq!(list(&operator).await.len(), 1);
    assert_eq!(admitted(tollgate, SECRET).await, 2, "of 5, 3 are used");
    let bad = Entry { value: "short".to_owned(), ..shown.clone() };
    let bad = Client { entries: vec![bad], ..secret(1) };
    assert_eq!(operator.upsert(bad).await.unwrap_err().code(), Code::InvalidArgument);

    assert!(!tollgate.log().join("\n").contains(SECRET));
}

#[tokio::test]
async fn redis_holds_hashes_of_sensitive_values() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = options(MARKED).redis(redis.url()).start();
    works_by_value(&tollgate).await;
    let mut connection = redis.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert!(keys.iter().any(|key| key.ends_with("{registry}:log")), "{keys:?}");
    let records: Vec<Vec<u8>> =
        redis::cmd("HGETALL").arg("tollgate:{registry}:records").query(&mut connection).unwrap();
    let log: redis::Value = redis::cmd("XRANGE")
        .arg(&["tollgate:{registry}:log", "-", "+"])
        .query(&mut connection)
        .unwrap();
    let all = format!("{keys:?} {log:?} {}", String::from_utf8_lossy(&records.concat()));
    assert!(all.contains("requests_per_unit"), "{all}");
    assert!(!all.contains(SECRET), "{all}");
    let operator = Operator::of(&tollgate).await;
    operator.delete(secret(0)).await.unwrap();
    assert!(list(&operator).await.is_empty());
}

#[tokio::test]
async fn file_holds_hashes_of_sensitive_values() {
    let data = tempfile::tempdir().unwrap();
    let tollgate = options(MARKED).data(data.path()).start();
    works_by_value(&tollgate).await;
    drop(tollgate);
    let file = std::fs::read(data.path().join("registry.redb")).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("requests_per_unit") && !holds(SECRET));
    let tollgate = options(MARKED).data(data.path()).start();
    assert_eq!(admitted(&tollgate, SECRET).await, 5, "after a restart");
}

#[tokio::test]
async fn values_that_become_sensitive_are_replaced_and_the_client_stays_in_force() {
    let data = tempfile::tempdir().unwrap();
    let tollgate = options(OPEN).data(data.path()).start();
    let operator = Operator::of(&tollgate).await;
    operator.upsert(secret(3)).await.unwrap();
    let shown = listed(&operator).await;
    assert_eq!((&*shown.value, shown.hashed), (SECRET, false));
    drop(tollgate);

    let tollgate = options(MARKED).data(data.path()).start();
    let operator = Operator::of(&tollgate).await;
    assert_eq!(admitted(&tollgate, SECRET).await, 3);
    tollgate.wait_for_log("replaced by hashes");
    assert!(is_hash(&listed(&operator).await));
    assert_eq!(admitted(&tollgate, SECRET).await, 0, "the same client and counter");
    assert!(tollgate.wait_for_log("hide_client").contains("\"what\":\"d|k="));
    let hidden = |line: &String| line.contains("replaced by hashes");
    assert_eq!(tollgate.log().iter().filter(|line| hidden(line)).count(), 1);
    assert!(!tollgate.log().join("\n").contains(SECRET));

    // Back again: the record has the hash until it is written again, and is found nevertheless.
    std::fs::write(tollgate.policies(), OPEN).unwrap();
    tollgate.wait_for_metric("tollgate_policy_version", 2.0);
    assert_eq!(admitted(&tollgate, SECRET).await, 3, "a counter by the value");
    let known = operator.get(secret(0)).await.unwrap();
    assert!(known.entries[0].hashed);
    let stale = Client { etag: "1".to_owned(), ..secret(4) };
    assert_eq!(operator.upsert(stale).await.unwrap_err().code(), Code::Aborted);
    let clear = operator.upsert(Client { etag: known.etag, ..secret(4) }).await.unwrap();
    assert_eq!(clear.entries[0], Entry { hashed: false, ..shown });
    assert_eq!(list(&operator).await.len(), 1, "in one form");
    assert_eq!(admitted(&tollgate, SECRET).await, 1);
    operator.delete(secret(0)).await.unwrap();
    assert_eq!(operator.get(secret(0)).await.unwrap_err().code(), Code::NotFound);
}
