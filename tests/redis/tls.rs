//! TLS: certificates of both sides, their files that change, and what an operator reads when they
//! do not fit.

use std::path::Path;
use std::process::Command;

use tollgate::config::{self, Secret, Sources};
use tollgate::redis::RedisSettings;

use super::ask::{failure, tollgate, works};
use crate::support::certs::{Authority, write};
use crate::support::redis::RedisServer;
use crate::support::tls::TlsRedis;

const HOME: &[&str] = &["127.0.0.1", "localhost"];

#[tokio::test]
async fn decisions_and_the_registry_go_over_tls_alone() {
    let Some(redis) = TlsRedis::start(HOME, false) else { return };
    let mut plain = redis.server.connection();
    let ca = format!("redis.tls.ca_file={}", redis.path("ca.crt"));
    let tollgate = tollgate().redis(redis.url()).set(ca).start();
    works(&tollgate, "tls").await;
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut plain).unwrap();
    let own = format!("laddr=127.0.0.1:{} ", redis.port);
    let clients = list.lines().count();
    assert_eq!(list.matches(&own).count(), clients - 1, "but for this one: {list}");
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

#[tokio::test]
async fn redis_that_wants_a_certificate_gets_one() {
    let Some(redis) = TlsRedis::start(HOME, true) else { return };
    let reason = failure(&redis.settings()).await;
    assert!(reason.contains("set redis.tls.cert_file"), "{reason}");

    let stranger = Authority::new("stranger").issue(redis.dir.path(), "stranger", &["x"]);
    let mut settings = redis.settings();
    (settings.tls.cert_file, settings.tls.key_file) = (Some(stranger.cert), Some(stranger.key));
    let reason = failure(&settings).await;
    assert!(reason.contains("does not accept the certificate of tollgate"), "{reason}");

    redis.authority.issue(redis.dir.path(), "tollgate", &["tollgate"]);
    let file = |setting: &str, name: &str| format!("redis.tls.{setting}={}", redis.path(name));
    let tollgate = tollgate()
        .redis(redis.url())
        .set(file("ca_file", "ca.crt"))
        .set(file("cert_file", "tollgate.crt"))
        .set(file("key_file", "tollgate.key"))
        .start();
    works(&tollgate, "mutual").await;
}

#[tokio::test]
async fn faults_of_certificates_say_what_to_do() {
    let Some(redis) = TlsRedis::start(&["cache.example"], false) else { return };
    let sound = redis.settings();
    let other = Authority::new("other").file(redis.dir.path().join("other.crt"));

    let reason = failure(&sound).await;
    assert!(reason.contains("is for cache.example, not for 127.0.0.1"), "{reason}");
    assert!(reason.contains("redis.tls.server_name"), "{reason}");

    let mut wrong_authority = sound.clone();
    wrong_authority.tls.ca_file = Some(other);
    wrong_authority.tls.skip_hostname = true;
    let reason = failure(&wrong_authority).await;
    assert!(reason.contains("set redis.tls.ca_file"), "{reason}");

    let expired = |authority: &Authority, dir: &Path| authority.issue_expired(dir, "old", HOME);
    let expired = TlsRedis::start_as(false, expired).unwrap();
    let reason = failure(&expired.settings()).await;
    assert!(reason.contains("has expired; renew it"), "{reason}");
}

#[tokio::test]
async fn name_is_that_of_the_setting_or_left_out() {
    let Some(redis) = TlsRedis::start(&["cache.example"], false) else { return };
    let ca = format!("redis.tls.ca_file={}", redis.path("ca.crt"));
    let settings = ["redis.tls.server_name=cache.example", "redis.tls.skip_hostname=true"];
    for setting in settings {
        // TLS without its scheme.
        let url = redis.url().replace("rediss", "redis");
        let tollgate =
            tollgate().redis(url).set("redis.tls.enabled=true").set(&ca).set(setting).start();
        works(&tollgate, setting).await;
    }
}

#[tokio::test]
async fn protocol_that_does_not_fit_the_port_is_named() {
    let Some(redis) = TlsRedis::start(HOME, false) else { return };
    let plain = RedisSettings::new(redis.url().replace("rediss", "redis")).unwrap();
    let reason = failure(&plain).await;
    assert!(reason.contains("write rediss://"), "{reason}");

    let server = RedisServer::start().unwrap();
    let mut tls = redis.settings();
    let url = format!("rediss://127.0.0.1:{}", server.port());
    tls.url = RedisSettings::new(url).unwrap().url;
    let reason = failure(&tls).await;
    assert!(reason.contains("TLS on this port"), "{reason}");
}

#[tokio::test]
async fn changed_files_are_used_by_the_next_connection() {
    let Some(mut redis) = TlsRedis::start(HOME, true) else { return };
    redis.authority.issue(redis.dir.path(), "tollgate", &["tollgate"]);
    let file = |setting: &str, name: &str| format!("redis.tls.{setting}={}", redis.path(name));
    let tollgate = tollgate()
        .redis(redis.url())
        .set(file("ca_file", "ca.crt"))
        .set(file("cert_file", "tollgate.crt"))
        .set(file("key_file", "tollgate.key"))
        .start();
    works(&tollgate, "first").await;

    // A key of another pair: the previous pair stays, also for new connections.
    let key = std::fs::read_to_string(redis.path("tollgate.key")).unwrap();
    let foreign = redis.authority.issue(redis.dir.path(), "foreign", &["x"]);
    write(Path::new(&redis.path("tollgate.key")), &std::fs::read_to_string(foreign.key).unwrap());
    let line = tollgate.wait_for_log("changed TLS files for Redis cannot be used");
    assert!(line.contains("redis.tls.key_file") && line.contains("tollgate.crt"), "{line}");
    redis.server.restart();
    works(&tollgate, "with-a-wrong-key").await;
    let warnings = tollgate.log().iter().filter(|line| line.contains("cannot be used")).count();
    assert_eq!(warnings, 1);

    // Everything is signed anew.
    write(Path::new(&redis.path("tollgate.key")), &key);
    let next = Authority::new("next");
    next.issue(redis.dir.path(), "redis", HOME);
    next.issue(redis.dir.path(), "tollgate", &["tollgate"]);
    next.file(redis.path("ca.crt"));
    tollgate.wait_for_log("the TLS files for Redis have changed");
    redis.server.restart();
    works(&tollgate, "second").await;
}

#[tokio::test]
async fn keys_of_every_form_are_read_and_others_refused() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        let status = Command::new("openssl").args(args.split(' ')).current_dir(dir.path()).output();
        let output = status.expect("openssl, which ca-certificates needs");
        assert!(output.status.success(), "{args}: {output:?}");
    };
    openssl("genrsa -traditional -out pkcs1.key 2048");
    openssl("ecparam -genkey -name prime256v1 -noout -out sec1.key");
    openssl("genpkey -algorithm ed25519 -out pkcs8.key");
    let ca = Authority::new("test").file(dir.path().join("ca.crt"));
    let settings = |cert: &str, key: &str| {
        let mut settings = RedisSettings::new("rediss://localhost").unwrap();
        settings.tls.ca_file = Some(ca.clone());
        settings.tls.cert_file = Some(dir.path().join(cert));
        settings.tls.key_file = Some(dir.path().join(key));
        settings
    };
    for (form, header) in [("pkcs1", "RSA PRIVATE"), ("sec1", "EC PRIVATE"), ("pkcs8", "PRIVATE")] {
        let (cert, key) = (format!("{form}.crt"), format!("{form}.key"));
        openssl(&format!("req -x509 -key {key} -out {cert} -subj /CN=tollgate -days 2"));
        let text = std::fs::read_to_string(dir.path().join(&key)).unwrap();
        assert!(text.starts_with(&format!("-----BEGIN {header} KEY")), "{text}");
        settings(&cert, &key).connector().unwrap_or_else(|fault| panic!("{form}: {fault}"));
    }
    for (cert, key, part) in [
        ("pkcs1.crt", "sec1.key", "the key does not fit the certificate in"),
        ("pkcs1.key", "pkcs1.key", "has no certificate"),
        ("pkcs1.crt", "pkcs1.crt", "has no private key"),
        ("none.crt", "pkcs1.key", "cannot be read"),
    ] {
        let fault = settings(cert, key).connector().unwrap_err().to_string();
        assert!(fault.starts_with("redis.tls.") && fault.contains(part), "{fault}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_faults() {
    for (set, fault) in [
        ("redis.url=redis://h redis.tls.ca_file=/x", "redis.tls.ca_file: has no effect without"),
        ("redis.url=rediss://h redis.tls.ca_file=/no/ca", "redis.tls.ca_file: /no/ca cannot be"),
        ("redis.url=rediss://h#insecure", "redis.url: expected a URL"),
        ("redis.url=rediss://h redis.tls.server_name=..", "redis.tls.server_name: \"..\" is no"),
        ("redis.url=redis://u:p@h redis.password=p", "redis.password: redis.url has one too"),
        ("redis.url=redis://h redis.username=u", "redis.username: has no password"),
        ("redis.url=redis://h/2 redis.database=1", "redis.database: redis.url has one too"),
        ("redis.nodes=h:1", "redis.nodes: is for sentinels"),
        ("redis.topology=ring", "expected standalone, sentinel or cluster"),
        ("redis.topology=cluster", "redis.nodes: is needed with redis.topology: cluster"),
        ("redis.topology=sentinel redis.nodes=h", "redis.nodes: found \"h\", expected a list"),
        ("redis.topology=sentinel redis.nodes=h:1", "redis.sentinel.master: is needed"),
        ("redis.topology=sentinel redis.sentinel.master=m", "redis.nodes: is needed"),
        (
            "redis.topology=sentinel redis.sentinel.master=m redis.nodes=h:1 redis.url=redis://h",
            "redis.url: is the address of a single server",
        ),
    ] {
        let set = set.split(' ').map(Secret::new).collect();
        let faults = config::load(&Sources { set, ..Sources::default() }).unwrap_err().to_string();
        assert!(faults.contains(fault), "{fault:?} in {faults}");
    }
    let text = "redis:\n  topology: sentinel\n  nodes: [a:1, 'b:2']\n  sentinel: {master: m}\n";
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir.path().join("tollgate.yaml"), text);
    let load = |file| config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    let loaded = load(file);
    let nodes = loaded.settings.redis.nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(nodes, ["a:1", "b:2"]);
    // The output of print-config loads again.
    let printed = write(&dir.path().join("printed.yaml"), &loaded.to_yaml());
    assert_eq!(load(printed).settings.changed(&loaded.settings), Vec::<String>::new());
}
