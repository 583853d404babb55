//! Faults of the server that no decision shows: named once, and gone when they are mended.

use super::ask::{tollgate, works};
use crate::support::http;
use crate::support::redis::RedisServer;

#[tokio::test]
async fn eviction_and_a_replica_are_named_once() {
    let args = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let Some(server) = RedisServer::start_with(&args) else { return };
    let tollgate = tollgate().redis(server.url()).start();
    let line = tollgate.wait_for_log("maxmemory-policy of Redis is allkeys-lru");
    assert!(line.contains("set noeviction"), "{line}");
    works(&tollgate, "evicting").await;
    let body = http::get(tollgate.at.http, "/readyz?verbose").body;
    assert!(body.contains("[-] redis eviction: ") && body.contains("[+] redis role"), "{body}");
    assert_eq!(http::get(tollgate.at.http, "/readyz").body, "OK\n");

    let primary = RedisServer::start().unwrap();
    let mut demote = redis::cmd("REPLICAOF");
    demote.arg("127.0.0.1").arg(primary.port()).exec(&mut server.connection()).unwrap();
    // At the next connection.
    let mut kill = redis::cmd("CLIENT");
    kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut server.connection()).unwrap();
    let line = tollgate.wait_for_log("is a replica");
    assert!(line.contains(&format!("its primary, 127.0.0.1:{}", primary.port())), "{line}");
    let evictions = tollgate.log().iter().filter(|line| line.contains("allkeys-lru")).count();
    assert_eq!(evictions, 1, "it has not changed");
}

#[tokio::test]
async fn server_that_does_not_tell_is_not_judged() {
    let args = ["--rename-command", "INFO", "", "--maxmemory", "100mb"];
    let Some(server) =
        RedisServer::start_with(&[&args[..], &["--maxmemory-policy", "allkeys-lru"]].concat())
    else {
        return;
    };
    let tollgate = tollgate().redis(server.url()).start();
    works(&tollgate, "silent").await;
    let verbose = || http::get(tollgate.at.http, "/readyz?verbose").body;
    tollgate.wait_for("the inspection", || verbose().contains("[+] redis permissions"));
    assert!(!verbose().contains("eviction"), "{}", verbose());
    let warnings = tollgate.log().into_iter().filter(|line| line.contains("WARN"));
    assert_eq!(warnings.collect::<Vec<_>>(), [""; 0]);
}
