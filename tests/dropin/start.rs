//! What the start refuses, passes over and says.

use std::process::Output;

use crate::support::tollgate::{Options, command, ratelimit};

fn ended(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut program = ratelimit(dir.path());
    program.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn what_would_change_limits_ends_the_start_with_every_reason_and_no_secret() {
    let environment = [
        ("BACKEND_TYPE", "memcache"),
        ("REDIS_URL", "a:1,b:2"),
        ("REDIS_AUTH", "hunter2"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("GRPC_UDS", "/run/ratelimit.sock"),
        ("USE_STATSD", "maybe"),
    ];
    let output = ended(&environment, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("4 faults in the settings"), "{said}");
    for name in ["BACKEND_TYPE: ", "REDIS_URL: ", "GRPC_UDS: ", "USE_STATSD: "] {
        assert!(said.contains(name), "{name} in {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn unknown_arguments_are_one_warning() {
    let tollgate = Options::default()
        .called_ratelimit()
        .env("REDIS_URL", "127.0.0.1:1")
        .arg("--quotaRateLimitServiceAddr=x:1")
        .start();
    let said = tollgate.wait_for_log("arguments that are not known have no effect");
    assert!(said.contains("--quotaRateLimitServiceAddr=x:1"), "{said}");
    let plain = command().arg("--quotaRateLimitServiceAddr=x:1").output().unwrap();
    assert_eq!(plain.status.code(), Some(2), "a mistake without the personality");
}

#[test]
fn each_variable_has_a_line_with_its_setting() {
    let tollgate = Options::default()
        .called_ratelimit()
        .env("REDIS_URL", "redis://:hunter2@127.0.0.1:1")
        .env("LOG_LEVEL", "info")
        .env("NEAR_LIMIT_RATIO", "0.5")
        .start();
    tollgate.wait_for_log("NEAR_LIMIT_RATIO is the setting metrics.near_limit_ratio = 0.5");
    tollgate.wait_for_log("REDIS_URL is the setting redis.url");
    assert!(!tollgate.log().join("\n").contains("hunter2"));
}

#[test]
fn without_the_personality_a_warning_says_how_to_get_it() {
    let tollgate = Options::serving("domain: d").env("RUNTIME_ROOT", "/data").start();
    let said = tollgate.wait_for_log("are set and not read: RUNTIME_ROOT");
    assert!(said.contains("--compat ratelimit"), "{said}");
}
