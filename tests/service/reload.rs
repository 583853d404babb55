//! Policies change while tollgate serves: within a second, whatever way the files are replaced, without losing what was
//! counted; and a faulty edit changes nothing but the log and a metric.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes, with_hits};
use crate::support::tollgate::{Options, Tollgate, request};

/// A policy of one limit.
fn policy(domain: &str, limit: u32) -> String {
    format!(
        "domain: {domain}\ndescriptors:\n  - {{key: k, rate_limit: {{unit: day, requests_per_unit: {limit}}}}}\n"
    )
}

/// The limit in force, without charging it; 0: none.
async fn limit(client: &mut Client, domain: &str) -> u32 {
    let asked = with_hits(request(domain, &[&[("k", "v")]]), 0);
    let answer = ask(client, asked).await;
    answer.statuses[0].current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit)
}

/// Waits until this limit is in force, for a second at most.
async fn soon(client: &mut Client, domain: &str, expected: u32) {
    let start = Instant::now();
    while limit(client, domain).await != expected {
        assert!(start.elapsed() < Duration::from_secs(1), "{expected} is not in force in a second");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn rename_over(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn edit_and_rename_are_in_force_within_a_second_and_hits_used_stay_used() {
    let tollgate = Options::serving(&policy("d", 3)).start();
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("k", "v")]]);
    assert_eq!(codes(&mut client, &asked, 3).await, [Code::Ok; 3]);
    // Raised: the three stay used. Lowered: all of it is. Raised again: still three.
    fs::write(tollgate.policies(), policy("d", 5)).unwrap();
    soon(&mut client, "d", 5).await;
    let peek = ask(&mut client, with_hits(asked.clone(), 0)).await;
    assert_eq!(peek.statuses[0].limit_remaining, 2);
    rename_over(&tollgate.policies(), &policy("d", 2));
    soon(&mut client, "d", 2).await;
    assert_eq!(codes(&mut client, &asked, 1).await, [Code::OverLimit]);
    rename_over(&tollgate.policies(), &policy("d", 4));
    soon(&mut client, "d", 4).await;
    assert_eq!(codes(&mut client, &asked, 2).await, [Code::Ok, Code::OverLimit]);
    assert_eq!(tollgate.metric("tollgate_policy_version"), Some(4.0));
    assert_eq!(tollgate.metric("tollgate_policy_reloads_total{result=\"ok\"}"), Some(3.0));
}

#[tokio::test]
async fn swapped_link_of_a_config_map_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    for (version, limit) in [("..v1", 1), ("..v2", 2)] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("p.yaml"), policy("d", limit)).unwrap();
    }
    symlink("..v1", dir.path().join("..data")).unwrap();
    symlink("..data/p.yaml", dir.path().join("p.yaml")).unwrap();
    // Mounted as a directory, or one file of it.
    let whole = Options::default().policies(dir.path()).start();
    let file = Options::default().policies(dir.path().join("p.yaml")).start();
    let (mut of_whole, mut of_file) = (whole.client().await, file.client().await);
    assert_eq!((limit(&mut of_whole, "d").await, limit(&mut of_file, "d").await), (1, 1));
    symlink("..v2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    soon(&mut of_whole, "d", 2).await;
    soon(&mut of_file, "d", 2).await;
}

#[tokio::test]
async fn files_of_a_directory_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("a.yaml"), policy("a", 1)).unwrap();
    fs::write(file("b.yaml"), policy("b", 2)).unwrap();
    let tollgate = Options::default().policies(dir.path()).start();
    let mut client = tollgate.client().await;
    for (domain, expected) in [("a", 1), ("b", 2), ("c", 0)] {
        assert_eq!(limit(&mut client, domain).await, expected);
    }
    fs::write(file("c.yaml"), policy("c", 3)).unwrap();
    soon(&mut client, "c", 3).await;
    fs::remove_file(file("b.yaml")).unwrap();
    soon(&mut client, "b", 0).await;
    assert_eq!(limit(&mut client, "a").await, 1);
    // A rule that is taken out limits nothing any more.
    fs::write(file("a.yaml"), "domain: a\ndescriptors: []\n").unwrap();
    soon(&mut client, "a", 0).await;
}

const REFUSED: &str = "tollgate_policy_reloads_total{result=\"refused\"}";

/// Waits until a reload was refused so often.
fn refused(tollgate: &Tollgate, times: u32) {
    tollgate.wait_for_metric(REFUSED, times.into());
    assert_eq!(tollgate.metric(REFUSED), Some(times.into()));
}

#[tokio::test]
async fn faulty_edit_changes_nothing_and_is_told_and_can_be_mended() {
    let tollgate = Options::serving(&policy("d", 3)).start();
    let mut client = tollgate.client().await;
    assert_eq!(codes(&mut client, &request("d", &[&[("k", "v")]]), 1).await, [Code::Ok]);
    assert_eq!(tollgate.metric(REFUSED), Some(0.0));
    fs::write(tollgate.policies(), policy("d", 9).replace("rate_limit", "ratelimit")).unwrap();
    refused(&tollgate, 1);
    let told = tollgate.wait_for_log("the policies stay as they are");
    for part in ["policies.yaml:3:14: ", "unknown key", "did you mean", "rate_limit"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert_eq!(limit(&mut client, "d").await, 3);
    assert_eq!(tollgate.metric("tollgate_policy_version"), Some(1.0));
    // Half a file, no file, no policies at all.
    fs::write(tollgate.policies(), "domain: \"d").unwrap();
    refused(&tollgate, 2);
    fs::remove_file(tollgate.policies()).unwrap();
    refused(&tollgate, 3);
    assert_eq!(limit(&mut client, "d").await, 3);
    fs::write(tollgate.policies(), policy("d", 9)).unwrap();
    soon(&mut client, "d", 9).await;
    let peek = ask(&mut client, with_hits(request("d", &[&[("k", "v")]]), 0)).await;
    assert_eq!(peek.statuses[0].limit_remaining, 8, "what was counted before is counted");
}

#[tokio::test]
async fn emptied_directory_is_refused_unless_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, policy("d", 3)).unwrap();
    let tollgate = Options::default().policies(dir.path()).start();
    let bold = Options::default().policies(dir.path()).set("policies.allow_empty=true").start();
    let (mut client, mut unlimited) = (tollgate.client().await, bold.client().await);
    assert_eq!(tollgate.metric("tollgate_policy_last_reload_successful"), Some(1.0));
    assert_eq!(tollgate.metric("tollgate_domains"), Some(1.0));
    assert_eq!(tollgate.metric("tollgate_rules"), Some(1.0));
    let started = tollgate.metric("tollgate_policy_last_reload_timestamp_seconds").unwrap();
    assert!(started > 1.7e9, "{started}");
    fs::remove_file(&file).unwrap();
    soon(&mut unlimited, "d", 0).await;
    refused(&tollgate, 1);
    assert_eq!(limit(&mut client, "d").await, 3);
    assert_eq!(tollgate.metric("tollgate_policy_last_reload_successful"), Some(0.0));
    let told = tollgate.wait_for_log("the policies stay as they are");
    assert!(told.contains("policies.allow_empty"), "{told}");
    fs::write(&file, policy("d", 4)).unwrap();
    soon(&mut client, "d", 4).await;
    tollgate.wait_for_metric("tollgate_policy_last_reload_successful", 1.0);
}

#[tokio::test]
async fn named_pipe_among_the_files_is_a_fault_and_edits_are_noticed_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (file, pipe) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    fs::write(&file, policy("d", 3)).unwrap();
    let tollgate = Options::default().policies(dir.path()).start();
    let mut client = tollgate.client().await;
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused(&tollgate, 1);
    let told = tollgate.wait_for_log("the policies stay as they are");
    assert!(told.contains("b.yaml: cannot be read: not a regular file"), "{told}");
    fs::remove_file(&pipe).unwrap();
    fs::write(&file, policy("d", 4)).unwrap();
    soon(&mut client, "d", 4).await;
}

#[tokio::test]
async fn reload_names_the_domains_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    for domain in ["a", "b", "c"] {
        fs::write(file(&format!("{domain}.yaml")), policy(domain, 1)).unwrap();
    }
    let tollgate = Options::default().policies(dir.path()).start();
    let next = dir.path().with_extension("next");
    fs::create_dir(&next).unwrap();
    for (domain, limit) in [("a", 1), ("b", 2), ("d", 1), ("e", 1)] {
        fs::write(next.join(format!("{domain}.yaml")), policy(domain, limit)).unwrap();
    }
    // As a whole, so that one reload sees all of it.
    fs::rename(dir.path(), dir.path().with_extension("old")).unwrap();
    fs::rename(&next, dir.path()).unwrap();
    let told = tollgate.wait_for_log("policies reloaded");
    for part in [r#""added":"d, e""#, r#""removed":"c""#, r#""changed":"b""#] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    fs::remove_dir_all(dir.path().with_extension("old")).unwrap();
}

#[tokio::test]
async fn hangup_reloads_policies_and_the_log_level() {
    let tollgate = Options::serving(&policy("d", 3)).config("log: {level: warn}\n").start();
    assert!(tollgate.log().is_empty(), "{:?}", tollgate.log());
    fs::write(tollgate.config(), "log: {level: info}\n").unwrap();
    tollgate.signal("HUP");
    let told = tollgate.wait_for_log("policies reloaded");
    assert!(told.contains("\"version\":2") && told.contains("\"rules\":1"), "{told}");
    assert_eq!(tollgate.metric("tollgate_policy_version"), Some(2.0));
}

#[tokio::test]
async fn hangup_names_the_changed_settings_that_need_a_restart() {
    let config = "admin: {token: hunter1}\nstore: {deadline: 20ms}\n";
    let tollgate = Options::serving(&policy("d", 3)).config(config).start();
    let changed = "admin: {token: hunter2}\nstore: {deadline: 30ms, on_failure: deny}\n\
                   mode: shadow\nmodes: {edge: off}\n";
    fs::write(tollgate.config(), changed).unwrap();
    tollgate.signal("HUP");
    let warned = tollgate.wait_for_log("until tollgate is restarted");
    let line: serde_json::Value = serde_json::from_str(&warned).unwrap();
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["settings"], "store.deadline, store.on_failure");
    let read = tollgate.wait_for_log("read mode, modes and log.level again");
    assert!(read.contains("Shadow") && read.contains("edge") && read.contains("Off"), "{read}");

    // Settings as they were at the start need none.
    fs::write(tollgate.config(), config.to_owned() + "log: {level: debug}\n").unwrap();
    tollgate.signal("HUP");
    tollgate.wait_for_log("\"level\":\"debug\"");
    tollgate.wait_for_log("\"version\":3");
    let warnings = tollgate.log().into_iter().filter(|line| line.contains("is restarted"));
    assert_eq!(warnings.count(), 1, "{:?}", tollgate.log());
    assert!(!tollgate.log().concat().contains("hunter"), "{:?}", tollgate.log());
}

#[tokio::test]
async fn without_a_path_the_built_in_example_is_served() {
    let tollgate = Options::default().start();
    let mut client = tollgate.client().await;
    let asked = request("example", &[&[("remote_address", "10.0.0.7")]]);
    let limit = ask(&mut client, asked).await.statuses[0].current_limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit_multiplier), (20, Some(10)));
    // What it says to try works as it stands.
    let told = tollgate.wait_for_log("curl -s");
    let line: serde_json::Value = serde_json::from_str(&told).unwrap();
    let (_, body) = line["message"].as_str().unwrap().split_once("-d '").unwrap();
    let body = body.trim_end_matches('\'');
    assert_eq!(crate::support::http::post(tollgate.at.http, "/json", body).status, 200);
    tollgate.signal("HUP");
    assert_eq!(codes(&mut client, &request("example", &[&[("x", "y")]]), 1).await, [Code::Ok]);
}
