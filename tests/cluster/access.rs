//! TLS, users and permissions, which hold for every node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::task::JoinHandle;
use tollgate::domain::Key;

use crate::failed::{tollgate_on, value_in};
use crate::support::certs::{Authority, write};
use crate::support::cluster::RedisCluster;
use crate::support::grpc::{Client, ask, is_degraded};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait;

const PAGE: &str = include_str!("../../docs/redis.md");
const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 4000000000}}
";

/// Time enough: this is about who may decide, not how fast.
fn tollgate(cluster: &RedisCluster) -> Options {
    tollgate_on(cluster, POLICIES).set("store.deadline=5s").set("redis.response_timeout=10s")
}

/// Every node decides, and all of them together.
async fn works(client: &mut Client) {
    let values = [0, 1, 2].map(value_in);
    let pairs = values.each_ref().map(|value| [("k", &value[..])]);
    for pair in &pairs {
        assert!(!is_degraded(&ask(client, request("d", &[pair])).await), "{pair:?}");
    }
    let all = request("d", &pairs.each_ref().map(|pair| &pair[..]));
    assert!(!is_degraded(&ask(client, all).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_found_and_asked_over_tls_alone() {
    let (authority, dir) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let ca = authority.file(dir.path().join("ca.crt"));
    let pair = authority.issue(dir.path(), "redis", &["127.0.0.1"]);
    let Some(cluster) = RedisCluster::start_with_tls(&ca, &pair) else { return };
    let tollgate = tollgate(&cluster)
        .set("redis.tls.enabled=true")
        .set(format!("redis.tls.ca_file={}", ca.display()))
        .start();
    works(&mut tollgate.client().await).await;
    for (node, port) in cluster.nodes.iter().zip(&cluster.ports) {
        let mut own = node.connection();
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut own).unwrap();
        let over_tls = list.matches(&format!("laddr=127.0.0.1:{port} ")).count();
        assert_eq!(over_tls, list.lines().count() - 1, "but for this one: {list}");
        assert!(over_tls > 0, "{list}");
    }
    assert_eq!(tollgate.errors(), Vec::<String>::new());
}

fn acl(cluster: &RedisCluster, words: &[String]) {
    for node in &cluster.nodes {
        redis::cmd("ACL").arg(words).exec(&mut node.connection()).unwrap();
    }
}

/// Gives a user the permissions of the documented line, and this password.
fn set_user(cluster: &RedisCluster, user: &str, password: &str, further: &[&str]) {
    let (_, line) = PAGE.split_once("```text\nACL SETUSER tollgate ").unwrap();
    let (line, _) = line.split_once("```").unwrap();
    let rules = line.split_whitespace().map(|rule| rule.replace("PASSWORD", password));
    let words = ["SETUSER".to_owned(), user.to_owned()].into_iter().chain(rules);
    acl(cluster, &words.chain(further.iter().map(ToString::to_string)).collect::<Vec<_>>());
}

fn start_as(cluster: &RedisCluster, dir: &tempfile::TempDir) -> Tollgate {
    let file =
        |setting: &str, name: &str| format!("redis.{setting}={}", dir.path().join(name).display());
    tollgate(cluster)
        .set(file("username_file", "user"))
        .set(file("password_file", "password"))
        .set("deny_cache.max_keys=0")
        .start()
}

/// The users of the connections at a node that are in no subscription, in which Redis takes no
/// log-in.
fn users(node: &RedisServer) -> Vec<String> {
    let mut list = redis::cmd("CLIENT");
    let list: String = list.arg(&["LIST", "TYPE", "normal"]).query(&mut node.connection()).unwrap();
    let user = |line: &str| {
        line.split(' ').find_map(|field| field.strip_prefix("user=")).unwrap().to_owned()
    };
    list.lines().map(user).filter(|user| user != "default").collect()
}

/// Asks every node in turn until it is stopped. Counts the calls in `asked`, and returns those that
/// Redis did not decide.
fn ask_all_the_time(
    client: &Client,
    asked: &Arc<AtomicU32>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<u32> {
    let (mut client, asked, stop) = (client.clone(), Arc::clone(asked), Arc::clone(stop));
    tokio::spawn(async move {
        let (mut degraded, values) = (0, [0, 1, 2].map(value_in));
        while !stop.load(Ordering::Relaxed) {
            for value in &values {
                let answer = ask(&mut client, request("d", &[&[("k", value)]])).await;
                asked.fetch_add(1, Ordering::Relaxed);
                degraded += u32::from(is_degraded(&answer));
            }
        }
        degraded
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_user_is_rotated_at_every_node_and_no_call_is_lost() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    set_user(&cluster, "one", "first", &[]);
    set_user(&cluster, "two", "second", &[]);
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| write(&dir.path().join(name), &format!("{text}\n"));
    put("user", "one");
    put("password", "first");
    let tollgate = start_as(&cluster, &dir);
    let mut client = tollgate.client().await;
    works(&mut client).await;
    let (asked, stop) = <(Arc<AtomicU32>, Arc<AtomicBool>)>::default();
    let load = ask_all_the_time(&client, &asked, &stop);
    let more = async || {
        let wanted = asked.load(Ordering::Relaxed) + 100;
        let enough = async || (asked.load(Ordering::Relaxed) >= wanted).then_some(());
        wait::until("calls", enough).await;
    };
    more().await;

    put("password", "second");
    put("user", "two");
    tollgate.wait_for("every connection to log in again", || {
        let users = cluster.nodes.iter().map(users).collect::<Vec<_>>();
        users.iter().all(|users| !users.is_empty() && users.iter().all(|user| user == "two"))
    });
    acl(&cluster, &["DELUSER".to_owned(), "one".to_owned()]);
    more().await;
    works(&mut client).await;

    // A slot that moves needs a permission of its own.
    let value = value_in(0);
    let slot = Key::new(format!("{{d|k={value}}}").into_bytes()).slot();
    cluster.move_slot(slot, 0, 1);
    works(&mut client).await;
    more().await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(load.await.unwrap(), 0, "without Redis");
    let log = tollgate.log();
    assert!(!log.iter().any(|line| line.contains("lacks permissions")), "{log:?}");
    assert_eq!(tollgate.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_permission_is_named_with_its_node() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    set_user(&cluster, "one", "first", &[]);
    let rule = ["SETUSER", "one", "-asking"];
    redis::cmd("ACL").arg(&rule).exec(&mut cluster.nodes[2].connection()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("user"), "one");
    write(&dir.path().join("password"), "first");
    let tollgate = start_as(&cluster, &dir);
    let line = tollgate.wait_for_log("lacks permissions");
    let fault = format!("ACL SETUSER USER +asking (at 127.0.0.1:{})", cluster.ports[2]);
    assert!(line.contains("WARN") && line.contains(&fault), "{line}");
    let answer = http::get(tollgate.at.http, "/readyz?verbose");
    assert!(answer.status == 200 && answer.body.contains(&fault), "{}", answer.body);
    for check in ["version", "eviction", "scripts"] {
        assert!(answer.body.contains(&format!("[+] redis {check}: ")), "{}", answer.body);
    }
}
