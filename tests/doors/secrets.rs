//! Secrets, planted wherever one may stand, and searched for in all that tollgate says: logs at
//! every level, faults, `print-config`, metrics, checks, and the settings as Rust shows them.

use std::fs;
use std::path::Path;

use tollgate::config::{self, Secret, Sources};

use crate::house::{House, POLICIES};
use crate::support::certs::write;
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, PLANTED, Tollgate, command};

/// A secret that no other place has.
fn planted(place: &str) -> String {
    format!("{PLANTED}-{place}")
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    write(&dir.join(name), text).to_str().unwrap().to_owned()
}

/// Settings with a secret in each place that has a value of its own, one at a time where two exclude
/// each other.
fn settings(dir: &Path) -> Vec<Vec<String>> {
    let tokens = format!("{{ci: {}}}", planted("tokens-file"));
    vec![
        vec![
            format!("admin.token={}", planted("admin-token")),
            format!("sensitive_key={}", planted("sensitive-key")),
            format!("redis.url=redis://user:{}@127.0.0.1:1", planted("redis-url")),
        ],
        vec![
            format!("admin.token_file={}", file(dir, "token", &planted("token-file"))),
            format!("admin.tokens_file={}", file(dir, "tokens.yaml", &tokens)),
            format!("sensitive_key_file={}", file(dir, "key", &planted("sensitive-key-file"))),
            "redis.url=redis://127.0.0.1:1".to_owned(),
            "redis.username=user".to_owned(),
            format!("redis.password={}", planted("redis-password")),
        ],
        vec![
            "redis.topology=sentinel".to_owned(),
            "redis.nodes=127.0.0.1:1".to_owned(),
            "redis.sentinel.master=m".to_owned(),
            format!("redis.sentinel.password={}", planted("sentinel-password")),
            format!("redis.password_file={}", file(dir, "password", &planted("password-file"))),
        ],
        vec![format!(
            "redis.url_file={}",
            file(dir, "url", &format!("redis://u:{}@127.0.0.1:1", planted("redis-url-file")))
        )],
    ]
}

fn assert_clean(what: &str, said: &str) {
    assert!(!said.contains(PLANTED), "{what}: {said}");
}

#[test]
fn print_config_and_faults_and_the_settings_themselves_show_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    for set in settings(dir.path()) {
        let sound = set.iter().map(|setting| Secret::new(setting)).collect();
        let loaded = config::load(&Sources { set: sound, ..Sources::default() }).unwrap();
        assert_clean("the settings", &format!("{:?}", loaded.settings));
        assert_clean("the loaded settings", &format!("{loaded:?}"));
        assert_clean("the printed settings", &loaded.to_yaml());
        // With a fault elsewhere, and with the secret itself as the fault: in a key that does not
        // exist, and in one that takes no text.
        for fault in ["grpc.cores=x", "grpc.core=1"] {
            let mut command = command();
            command.arg("print-config");
            for setting in &set {
                command.args(["--set", setting]);
            }
            let output = command.args(["--set", fault]).output().unwrap();
            assert!(!output.status.success());
            assert_clean(fault, &String::from_utf8_lossy(&output.stderr));
            assert_clean(fault, &String::from_utf8_lossy(&output.stdout));
        }
    }
    for bad in [
        format!("admin: {{token: [{}]}}\n", planted("list")),
        format!("admin: {{tokens: {{'a b': {}}}}}\n", planted("name")),
        format!("admin: {{tokens: [{}]}}\n", planted("not-a-mapping")),
        format!("redis: {{url: 'http://u:{}@h'}}\n", planted("scheme")),
        format!("redis: {{url: 'redis://u:{}@h:99999'}}\n", planted("port")),
        format!("sensitive_key: {{a: {}}}\n", planted("mapping")),
        format!("admin: {{token: '{} with blanks'}}\n", planted("blanks")),
    ] {
        let path = write(&dir.path().join("bad.yaml"), &bad);
        let sources = Sources { file: Some(path), ..Sources::default() };
        let faults = config::load(&sources).unwrap_err().to_string();
        assert_clean(&bad, &faults);
    }
}

/// Everything that a running tollgate says, but for its log, which is searched at its end.
fn searched(tollgate: &Tollgate) {
    for path in ["/metrics", "/readyz?verbose"] {
        assert_clean(path, &http::get(tollgate.at.http, path).body);
    }
    let command_line = fs::read(format!("/proc/{}/cmdline", tollgate.pid())).unwrap();
    assert!(!command_line.is_empty());
}

#[test]
fn running_tollgate_shows_no_secret_at_any_level_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    for set in settings(dir.path()) {
        let options = Options::serving(POLICIES).set("log.level=trace");
        let tollgate = set.iter().fold(options, Options::set).start();
        tollgate.wait_for_log("Redis");
        searched(&tollgate);
        // Read again, with another fault.
        tollgate.signal("HUP");
        tollgate.wait_for_log("read mode, modes and log.level again");
        assert_clean("the log", &tollgate.log().join("\n"));
    }
}

#[test]
fn tokens_of_callers_and_passwords_that_redis_refuses_are_not_shown() {
    let Some(redis) = RedisServer::start_with(&["--requirepass", "right"]) else { return };
    let house = House::new();
    let url = redis.url().replace("redis://", &format!("redis://:{}@", planted("refused")));
    let tollgate = house
        .tollgate(&["admin"])
        .redis(url)
        .set("log.level=trace")
        .set(format!("admin.token={}", planted("right-token")))
        .start();
    let address = format!("https://{}", tollgate.at.admin);
    for token in ["right-token", "wrong-token"] {
        let path = file(house.dir.path(), token, &planted(token));
        let args = ["admin", "--address", &address, "--ca-file", &house.path("ca.crt")];
        let mut command = command();
        let output = command.args(args).args(["--token-file", &path, "list"]).output().unwrap();
        assert_clean(token, &String::from_utf8_lossy(&output.stderr));
        assert_clean(token, &String::from_utf8_lossy(&output.stdout));
    }
    tollgate.wait_for_log("refused");
    searched(&tollgate);
    assert_clean("the log", &tollgate.log().join("\n"));
}

#[test]
fn keys_of_certificates_are_not_shown() {
    let house = House::new();
    let key = fs::read_to_string(house.path("server.key")).unwrap();
    let secret = key.lines().nth(1).unwrap().to_owned();
    // In the place of the certificate, and damaged.
    for (name, text) in [("swapped.key", key.clone()), ("damaged.key", key.replace('=', "!"))] {
        let path = file(house.dir.path(), name, &text);
        let mut command = command();
        for setting in [format!("grpc.tls.cert_file={path}"), format!("grpc.tls.key_file={path}")] {
            command.args(["--set", &setting]);
        }
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!output.status.success());
        assert!(!String::from_utf8_lossy(&said).contains(&secret), "{name}");
    }
}
