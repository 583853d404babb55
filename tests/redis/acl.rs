//! A user with exactly the permissions of docs/redis.md serves everything, and a permission less is
//! named.

use super::ask::{tollgate, until_decided, works};
use crate::support::http;
use crate::support::operator::{Operator, daily};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};

const PAGE: &str = include_str!("../../docs/redis.md");

/// The words of the documented line, for this user and password.
fn rules(user: &str, password: &str) -> Vec<String> {
    let (_, line) = PAGE.split_once("```text\nACL SETUSER ").unwrap();
    let (line, _) = line.split_once("```").unwrap();
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("tollgate"));
    let rest = words.map(|word| word.replace(">PASSWORD", &format!(">{password}")));
    [user.to_owned()].into_iter().chain(rest).collect()
}

fn set_user(server: &RedisServer, words: &[String]) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(words).exec(&mut server.connection()).unwrap();
}

fn start(server: &RedisServer) -> Tollgate {
    let login = |options: Options| {
        options.set("redis.username=tollgate").env("TOLLGATE__REDIS__PASSWORD", "sesame")
    };
    login(tollgate().redis(server.url())).start()
}

fn verbose(tollgate: &Tollgate) -> String {
    let answer = http::get(tollgate.at.http, "/readyz?verbose");
    assert_eq!(answer.status, 200);
    answer.body
}

#[tokio::test]
async fn documented_user_serves_decisions_and_operators() {
    let Some(server) = RedisServer::start() else { return };
    set_user(&server, &rules("tollgate", "sesame"));
    let (one, two) = (start(&server), start(&server));
    works(&one, "acl").await;
    // By a notice: a poll comes later than this test would like, but no less surely.
    let operator = Operator::of(&one).await;
    operator.upsert(daily("other", 1)).await.unwrap();
    two.wait_for_metric("tollgate_registry_revision", 2.0);
    assert_eq!(operator.list().await.unwrap().0.len(), 2);
    operator.delete(daily("other", 1)).await.unwrap();
    one.wait_for("the inspection", || verbose(&one).contains("redis permissions"));
    let text = verbose(&one);
    assert!(text.starts_with("OK\n[+] policies: ") && !text.contains("[-]"), "{text}");
    for check in ["store", "redis version", "redis role", "redis eviction", "registry"] {
        assert!(text.contains(&format!("[+] {check}: ")), "{check} in {text}");
    }
    assert_eq!(one.metric("tollgate_registry_writable"), Some(1.0));
    for tollgate in [&one, &two] {
        tollgate.wait_for_metric("tollgate_replicas_seen", 2.0);
        let warnings = tollgate.log().into_iter().filter(|line| line.contains("WARN"));
        assert_eq!(warnings.collect::<Vec<_>>(), [""; 0]);
    }

    let url = format!("redis://tollgate:sesame@127.0.0.1:{}", server.port());
    let mut user = redis::Client::open(url).unwrap().get_connection().unwrap();
    for foreign in ["other", "tollgat"] {
        let refused = redis::cmd("GET").arg(foreign).exec(&mut user).unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"));
    }
}

#[tokio::test]
async fn each_missing_permission_is_named_once() {
    let Some(server) = RedisServer::start() else { return };
    let words = [rules("tollgate", "sesame"), vec!["-xadd".into(), "-setrange".into()]].concat();
    set_user(&server, &[words, vec!["-subscribe".into()]].concat());
    let tollgate = start(&server);
    let line = tollgate.wait_for_log("lacks permissions");
    let missing = "ACL SETUSER USER +setrange +subscribe +xadd";
    assert!(line.contains("WARN") && line.contains(missing), "{line}");
    let text = verbose(&tollgate);
    assert!(text.contains("[-] redis permissions: ") && text.contains(missing), "{text}");
    // The first write of a counter is refused, and that is named, too.
    let mut client = tollgate.client().await;
    super::ask::is_decided(&mut client).await;
    super::ask::is_decided(&mut client).await;
    let count = |part: &str| tollgate.log().iter().filter(|line| line.contains(part)).count();
    assert_eq!(count("lacks permissions"), 1);
    assert!(count("Redis refuses commands of tollgate") <= 1, "{:?}", tollgate.log());

    // The permissions are given: decisions follow at once.
    set_user(&server, &["tollgate".into(), "+@all".into()]);
    until_decided(&mut client).await;
}

#[tokio::test]
async fn wrong_password_and_missing_scripts_are_named_at_the_start() {
    let Some(server) = RedisServer::start() else { return };
    set_user(&server, &rules("tollgate", "other"));
    let tollgate = start(&server);
    let line = tollgate.wait_for_log("authentication failed: WRONGPASS");
    assert!(line.contains("WARN") && !line.contains("sesame"), "{line}");

    set_user(&server, &[rules("tollgate", "sesame"), vec!["-script".into()]].concat());
    let line = tollgate.wait_for_log("the script cannot be loaded");
    assert!(line.contains("NOPERM") && line.contains("docs/redis.md"), "{line}");
    drop(tollgate);

    let Some(proxy) = RedisServer::start_with(&["--rename-command", "SCRIPT", ""]) else { return };
    let tollgate = super::ask::tollgate().redis(proxy.url()).start();
    let line = tollgate.wait_for_log("unknown command");
    assert!(line.contains("connect to Redis itself, not to a proxy"), "{line}");
}
