//! User and password that change in their files, under load: no call is lost or decided without
//! Redis.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::ask::{Load, tollgate, works};
use crate::support::certs::write;
use crate::support::redis::RedisServer;
use crate::support::tollgate::Tollgate;

fn acl(server: &RedisServer, words: &[&str]) {
    redis::cmd("ACL").arg(words).exec(&mut server.connection()).unwrap();
}

/// The connections of tollgate as Redis lists them: id and user.
fn connections(server: &RedisServer) -> BTreeSet<(u64, String)> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connection()).unwrap();
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ');
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let users = list
        .lines()
        .map(|line| (field(line, "id").unwrap().parse().unwrap(), field(line, "user").unwrap()));
    users.filter(|(_, user)| user != "default").collect()
}

fn ids(connections: &BTreeSet<(u64, String)>) -> BTreeSet<u64> {
    connections.iter().map(|(id, _)| *id).collect()
}

/// The ids of connections in a subscription, in which Redis takes no log-in.
fn subscribed(server: &RedisServer) -> BTreeSet<u64> {
    let mut list = redis::cmd("CLIENT");
    let list: String =
        list.arg(&["LIST", "TYPE", "pubsub"]).query(&mut server.connection()).unwrap();
    let id = |line: &str| line.split(' ').next()?.strip_prefix("id=")?.parse().ok();
    list.lines().filter_map(id).collect()
}

fn start(server: &RedisServer, dir: &Path) -> Tollgate {
    let file = |setting: &str, name: &str| format!("redis.{setting}={}", dir.join(name).display());
    tollgate()
        .redis(server.url())
        .set(file("username_file", "user"))
        .set(file("password_file", "password"))
        .set("grpc.cores=2")
        .start()
}

// Callers go on while the test blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_user_and_password_lose_no_call() {
    let Some(server) = RedisServer::start() else { return };
    let everything = ["on", "~*", "&*", "+@all"];
    acl(&server, &[&["SETUSER", "one", ">first"], &everything[..]].concat());
    acl(&server, &[&["SETUSER", "two", ">third"], &everything[..]].concat());
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| write(&dir.path().join(name), &format!("{text}\n"));
    put("user", "one");
    put("password", "first");
    let tollgate = start(&server, dir.path());
    works(&tollgate, "before").await;
    let load = Load::start(&tollgate, 8).await;

    // The file changes before Redis knows the password.
    put("password", "second");
    let line = tollgate.wait_for_log("Redis refuses what");
    assert!(line.contains("password now holds: authentication failed"), "{line}");
    assert!(!line.contains("first") && !line.contains("second"), "{line}");
    acl(&server, &["SETUSER", "one", ">second"]);
    tollgate.wait_for_log("every connection logs in again");
    acl(&server, &["SETUSER", "one", "<first"]);
    works(&tollgate, "second").await;

    // Another user: its name shows who has logged in again.
    let before = connections(&server);
    assert!(before.len() >= 6 && before.iter().all(|(_, user)| user == "one"), "{before:?}");
    let listening = subscribed(&server);
    put("password", "third");
    put("user", "two");
    let all_are_two = || {
        let now = connections(&server);
        !now.is_empty() && now.iter().all(|(_, user)| user == "two")
    };
    // The inspection logs in again with its next look; that is no connection of a call.
    let calls_are_two =
        || connections(&server).iter().filter(|(_, user)| user == "one").count() <= 1;
    tollgate.wait_for("every connection to log in again", || all_are_two() || calls_are_two());
    let (after, before) = (ids(&connections(&server)), ids(&before));
    let ended = before.difference(&after).copied().collect::<BTreeSet<_>>();
    assert!(ended.is_subset(&listening), "{ended:?} ended, {listening:?} listened");
    // Redis closes the connections of a user that is gone.
    acl(&server, &["DELUSER", "one"]);
    works(&tollgate, "third").await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    let (asked, degraded) = load.end().await;
    assert!(asked > 500 && degraded == 0, "{degraded} of {asked} without Redis");
    assert_eq!(tollgate.metric("tollgate_degraded_claims_total{answer=\"allow\"}"), Some(0.0));
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}
