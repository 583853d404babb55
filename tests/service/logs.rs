//! Log files, their rotation, and the level at run time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::admin_cli::admin;
use crate::support::grpc::codes;
use crate::support::tollgate::{Options, Tollgate, command, request};

const POLICY: &str = "
domain: d
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1}}
";

/// The lines of a log file, each of which is a whole object.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn has(path: &Path, word: &str) -> bool {
    lines(path).iter().any(|line| line.to_string().contains(word))
}

fn logging_to(dir: &Path) -> (Options, [PathBuf; 3]) {
    let files = ["main.log", "audit.log", "denied.log"].map(|name| dir.join(name));
    let [main, audit, denied] = &files;
    let options = Options::serving(POLICY)
        .set(format!("log.file={}", main.display()))
        .set(format!("log.audit_file={}", audit.display()))
        .set(format!("log.denied_file={}", denied.display()));
    (options, files)
}

async fn deny(tollgate: &Tollgate, times: usize) {
    codes(&mut tollgate.client().await, &request("d", &[&[("user", "a")]]), times).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_log_has_its_file_and_hangup_opens_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (options, [main, audit, denied]) = logging_to(dir.path());
    let mut tollgate = options.set("log.level=warn").set("log.denied_per_second=1000").start();
    deny(&tollgate, 4).await;
    admin(&tollgate, "mode shadow").ok();
    tollgate.wait_for("three denials", || lines(&denied).len() == 3);
    assert!(has(&audit, "set_mode"), "audit lines are written at every level, before the answer");
    tollgate.wait_for("the warning", || has(&main, "limits are not enforced"));
    assert!(!has(&main, "set_mode") && !has(&main, "\"denied\""));
    assert_eq!(tollgate.log(), [""; 0], "standard error is silent");
    // As logrotate does.
    let moved = dir.path().join("audit.log.old");
    fs::rename(&audit, &moved).unwrap();
    fs::rename(&main, dir.path().join("main.log.old")).unwrap();
    tollgate.signal("HUP");
    tollgate.wait_for("new files", || audit.exists() && main.exists());
    admin(&tollgate, "mode off").ok();
    assert!(has(&audit, "\"after\":\"off\""));
    assert!(has(&moved, "\"after\":\"shadow\"") && !has(&moved, "\"after\":\"off\""));
    tollgate.signal("TERM");
    assert!(tollgate.wait().success());
    assert_eq!(tollgate.log(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_rotated_and_every_line_is_whole_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (options, [main, _, denied]) = logging_to(dir.path());
    let mut tollgate = options
        .set("log.denied_per_second=100000")
        .set("log.max_bytes=4096")
        .set("log.keep=1000")
        .start();
    deny(&tollgate, 501).await;
    tollgate.signal("TERM");
    assert!(tollgate.wait().success());
    assert!(has(&main, "\"stopped\""), "the last line is there");
    let rotated = (1..=1_000).map(|number| dir.path().join(format!("denied.log.{number}")));
    let files: Vec<_> = rotated.take_while(|file| file.exists()).chain([denied]).collect();
    assert!(files.len() > 10, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 4_096));
    assert_eq!(files.iter().map(|file| lines(file).len()).sum::<usize>(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_are_logged_at_info_as_often_as_the_settings_say() {
    let options = Options::serving(POLICY).set("log.denied=true");
    let tollgate = options.set("log.denied_per_second=1").start();
    deny(&tollgate, 21).await;
    let dropped = "tollgate_log_lines_dropped_total{log=\"denied\"}";
    tollgate.wait_for("each denial is counted or logged", || {
        let logged = tollgate.log().iter().filter(|line| line.contains("\"denied\"")).count();
        tollgate.metric(dropped) == Some(20.0 - logged as f64) && (1..10).contains(&logged)
    });
}

#[test]
fn file_that_cannot_be_written_is_told_at_the_start_and_at_run_time() {
    let output = command()
        .args(["--set", "log.file=/nowhere/tollgate.log", "--set", "http.listen=127.0.0.1:0"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("log.file: /nowhere/tollgate.log cannot be opened (No such"), "{text}");
    let tollgate = Options::serving(POLICY).set("log.file=/dev/full").start();
    let line = tollgate.wait_for_log("the log file /dev/full cannot be written: No space left");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "ERROR");
    tollgate.wait_for_metric("tollgate_log_lines_dropped_total{log=\"main\"}", 1.0);
    assert_eq!(tollgate.log().len(), 1, "one line for the outage: {:#?}", tollgate.log());
}

#[test]
fn level_is_that_of_the_operator_until_it_ends() {
    let tollgate = Options::serving(POLICY).config("log: {level: warn}").start();
    let set = |words: &str| admin(&tollgate, &format!("log-level {words}"));
    let printed = set("debug");
    assert_eq!(printed.ok(), "log level on this replica alone: debug (before: warn)\n");
    let line: Value = serde_json::from_str(&tollgate.wait_for_log("set_log_level")).unwrap();
    assert_eq!((&line["before"], &line["after"]), (&"warn".into(), &"debug".into()));
    // The shortest way back.
    let printed = set("info --for 50ms");
    assert!(printed.ok().starts_with("log level on this replica alone: info until "));
    tollgate.wait_for_log("\"after\":\"by settings\"");
    let printed = set("--json trace");
    let expected = "{\"level\":\"trace\",\"previous\":\"warn\",\"until\":null}\n";
    assert_eq!(printed.ok(), expected);
    tollgate.signal("HUP");
    tollgate.wait_for("the level of the settings", || {
        set("--json settings").ok().contains("\"previous\":\"warn\"")
    });
    let refused = set("loud");
    assert!(refused.failed(1).contains("level \"loud\" is no level"), "{refused:?}");
    let refused = set("settings --for 1m");
    assert!(refused.failed(1).contains("duration needs a level"), "{refused:?}");
}
