//! Sentinel: the primary freezes and comes back, dies, or the sentinels do; nothing counts in two
//! places.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tollgate::redis::RedisSettings;

use super::ask::{POLICIES, tollgate, until_decided, works};
use crate::support::redis::{RedisServer, free_port};
use crate::support::sentinel::{MASTER, SentinelSet, spawn};
use crate::support::tls::TlsRedis;
use crate::support::tollgate::{Options, Tollgate, command};

/// The time for a connection to be closed after the switch was seen.
const AT_ONCE: Duration = Duration::from_millis(300);

fn through(set: &SentinelSet) -> Options {
    tollgate()
        .set("store.deadline=500ms")
        .set("redis.topology=sentinel")
        .set(format!("redis.nodes={}", set.nodes()))
        .set(format!("redis.sentinel.master={MASTER}"))
}

/// The hits that the counter of the probes has; a sliding window a day is a string of Redis.
fn calls(server: &RedisServer) -> u64 {
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    let evalsha = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    evalsha.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or_default()
}

/// Asks all the time until the sentinels name another primary and tollgate has seen it.
async fn ask_until_switched(tollgate: &Tollgate) {
    let mut client = tollgate.client().await;
    let late = Instant::now() + Duration::from_secs(30);
    while tollgate.metric("tollgate_redis_switches_total") != Some(1.0) {
        assert!(Instant::now() < late, "no switch: {:?}", tollgate.log());
        super::ask::is_decided(&mut client).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn frozen_primary_that_comes_back_decides_nothing() {
    let Some(set) = SentinelSet::start() else { return };
    let [old, new] = &set.servers;
    let tollgate = through(&set).start();
    works(&tollgate, "before").await;
    let address = |server: &RedisServer| {
        format!("tollgate_redis_primary{{address=\"127.0.0.1:{}\"}}", server.port())
    };
    assert_eq!(tollgate.metric(&address(old)), Some(1.0));
    old.pause();
    let frozen = Instant::now();
    ask_until_switched(&tollgate).await;
    let mut client = tollgate.client().await;
    until_decided(&mut client).await;
    println!("decided by the new primary {:?} after the freeze", frozen.elapsed());
    assert_eq!((tollgate.metric(&address(old)), tollgate.metric(&address(new))), (None, Some(1.0)));
    let line = tollgate.wait_for_log("the primary has moved");
    assert!(line.contains(&old.port().to_string()) && line.contains(&new.port().to_string()));

    // It comes back, and the sentinels need seconds to demote it.
    old.resume();
    tokio::time::sleep(AT_ONCE).await;
    let (at_old, at_new) = (calls(old), calls(new));
    for _ in 0..200 {
        assert!(super::ask::is_decided(&mut client).await);
    }
    assert_eq!(calls(old), at_old, "the old primary decides");
    assert!(calls(new) >= at_new + 200);
    works(&tollgate, "after").await;
    assert_eq!(tollgate.metric("tollgate_redis_switches_total"), Some(1.0));
}

#[tokio::test]
async fn killed_primary_is_replaced() {
    let Some(mut set) = SentinelSet::start() else { return };
    let tollgate = through(&set).start();
    works(&tollgate, "before").await;
    set.servers[0].stop();
    ask_until_switched(&tollgate).await;
    works(&tollgate, "after").await;
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

#[tokio::test]
async fn decisions_go_on_without_sentinels() {
    let Some(mut set) = SentinelSet::start() else { return };
    let tollgate = through(&set).start();
    works(&tollgate, "with").await;
    set.stop_sentinels();
    let mut client = tollgate.client().await;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(super::ask::is_decided(&mut client).await, "{:?}", tollgate.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    works(&tollgate, "without").await;
    // A start without them waits, and says for what.
    let other = through(&set).start();
    let line = other.wait_for_log("no sentinel answers");
    assert!(line.contains("refused"), "{line}");
}

#[tokio::test]
async fn wrong_name_of_the_primary_is_a_fault_at_the_start() {
    let Some(set) = SentinelSet::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies.yaml");
    std::fs::write(&policies, POLICIES).unwrap();
    let mut command = command();
    for set in [
        "grpc.listen=127.0.0.1:0",
        "admin.listen=127.0.0.1:0",
        "http.listen=127.0.0.1:0",
        "redis.topology=sentinel",
        "redis.sentinel.master=mymaster",
        &format!("redis.nodes={}", set.nodes()),
    ] {
        command.args(["--set", set]);
    }
    let output = command.arg("--policies").arg(policies).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let fault = format!(
        "redis.sentinel.master: the sentinels do not know \"mymaster\"; they know {MASTER}"
    );
    assert!(text.contains(&fault), "{text}");
    assert!(RedisSettings::default().connector().is_err(), "there is no Redis by default");
}

/// A process of the test's own; killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn sentinel_is_asked_over_tls_and_with_its_own_password() {
    let Some(redis) = TlsRedis::start(&["127.0.0.1"], false) else { return };
    let own = free_port();
    let text = format!(
        "port 0\ntls-port {own}\ntls-cert-file {cert}\ntls-key-file {key}\n\
         tls-ca-cert-file {ca}\ntls-auth-clients no\ntls-replication yes\n\
         requirepass sesame\nsentinel monitor {MASTER} 127.0.0.1 {port} 1\n",
        cert = redis.path("redis.crt"),
        key = redis.path("redis.key"),
        ca = redis.path("ca.crt"),
        port = redis.port,
    );
    let _sentinel = Killed(spawn(redis.dir.path(), "sentinel", &text));
    let start = |password: &str| {
        tollgate()
            .set("redis.topology=sentinel")
            .set(format!("redis.nodes=127.0.0.1:{own}"))
            .set(format!("redis.sentinel.master={MASTER}"))
            .set("redis.tls.enabled=true")
            .set(format!("redis.tls.ca_file={}", redis.path("ca.crt")))
            .env("TOLLGATE__REDIS__SENTINEL__PASSWORD", password)
            .start()
    };
    works(&start("sesame"), "sentinel-over-tls").await;
    let line = start("hunter2").wait_for_log("no sentinel answers");
    assert!(line.contains("authentication failed") && !line.contains("hunter2"), "{line}");
}
