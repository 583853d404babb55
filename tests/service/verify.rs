//! `tollgate verify` and `tollgate load --verify`: what is convicted, what is acquitted, and what
//! cannot be judged.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::redis::free_port;
use crate::support::tollgate::{Options, Tollgate, command};

/// Ends with this code, and what it printed.
fn run(code: i32, args: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = command().args(args).output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(status.code(), Some(code), "{args:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn self_test_convicts_every_impostor_and_no_other() {
    let (table, _) = run(0, &["verify", "--self-test"]);
    let excess_of = |limiter: &str, promise: &str| -> (f64, bool) {
        let row = table.lines().find(|row| row.starts_with(limiter) && row.contains(promise));
        let row = row.unwrap_or_else(|| panic!("no {limiter} as {promise} in\n{table}"));
        let excess = row.split_whitespace().rev().nth(1).unwrap();
        (excess.parse().unwrap(), row.ends_with("convicted"))
    };
    for (limiter, promise, least, most) in [
        ("fixed window 50/s", "sliding_window 50/s", 40.0, 50.0),
        ("fixed window 50/s", "token_bucket 50/s burst 50", 10.0, 50.0),
        ("leases debited plainly", "token_bucket 10/s", 30.0, 40.0),
        ("sliding window 1010/s", "sliding_window 1000/s", 5.0, 200.0),
    ] {
        let (excess, convicted) = excess_of(limiter, promise);
        assert!(convicted && (least..=most).contains(&excess), "{limiter}: {excess}\n{table}");
    }
    for (limiter, promise) in [
        ("sliding window 50/s", "sliding_window 50/s"),
        ("token bucket 50/s", "token_bucket 50/s"),
        ("fixed window 50/s", "fixed_window 50/s"),
        ("leases with a floor", "token_bucket 10/s"),
    ] {
        let (excess, convicted) = excess_of(limiter, promise);
        // A checker that counts nothing would find much less.
        assert!(!convicted && (-2.0..=0.0).contains(&excess), "{limiter}: {excess}\n{table}");
    }
}

/// Two callers of one key, each within the limit.
const ONE: &str = "key,sent_us,received_us,hits,admitted\nk,1000,1500,1,1\nk,1000000,1000700,1,0\n";
const OTHER: &str = "k,500000,500900,1,1,1\nother,500000,500900,2,1,0\n";

#[test]
fn calls_of_several_callers_are_convicted_together() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (file(&dir, "one.csv", ONE), file(&dir, "other.csv", OTHER));
    let limit = ["--limit", "sliding_window 1/s"];
    let (text, _) = run(0, &["verify", &one, limit[0], limit[1]]);
    assert!(text.starts_with("held: 1 counters, 1 calls admitted, 1 refused"), "{text}");
    assert!(text.contains("needless refusals: 0 of 1"), "{text}");

    let (text, _) = run(1, &["verify", &one, &other, limit[0], limit[1]]);
    assert!(text.starts_with("convicted: 2 of 2 counters"), "{text}");
    for part in [
        "\nk  sliding_window 1/second\n",
        "2 hits from 1000 to 500900 us (0.500 s), 1 allowed",
        "2 hits from 500000 to 500900 us",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let (line, _) = run(1, &["verify", &one, &other, limit[0], limit[1], "--json", "--show", "1"]);
    let report = json(&line);
    assert_eq!((&report["held"], &report["convicted"]), (&Value::from(false), &Value::from(2)));
    assert_eq!(report["worst"].as_array().unwrap().len(), 1);
    let interval = &report["worst"][0]["interval"];
    assert_eq!((interval["hits"].as_u64(), interval["excess"].as_f64()), (Some(2), Some(1.0)));

    run(0, &["verify", &one, &other, limit[0], limit[1], "--bound", "2"]);
    run(0, &["verify", &one, &other, "--limit", "sliding_window 2/s"]);
    run(0, &["verify", &one, &other, "--limit", "fixed_window 100/10s"]);
    run(0, &["verify", &one, &other, "--limit", "token_bucket 1/day burst 2"]);
    run(1, &["verify", &one, &other, "--limit", "token_bucket 1/day"]);
    let late = file(&dir, "late.csv", "k,1000400,1000500,1,1\n");
    run(1, &["verify", &one, &late, limit[0], limit[1]]);
    run(0, &["verify", &one, &late, limit[0], limit[1], "--clock-error", "500us"]);
}

#[test]
fn degraded_calls_can_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let trace = file(&dir, "t.csv", "k,1,2,1,1,0\nk,3,4,1,1,1\n");
    run(1, &["verify", &trace, "--limit", "1/s"]);
    run(0, &["verify", &trace, "--limit", "1/s", "--ignore-degraded"]);
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let limit = ["--limit", "1/s"];
    for (text, part) in [
        ("k,1,2,1,1\nk,1,2,1\n", "t.csv:2: has no admitted"),
        ("k,1,2,1,1\n\nk,5,2,1,1\n", "t.csv:3: received_us is before sent_us"),
        ("key,sent_us,received_us,hits,admitted\n", "no calls"),
    ] {
        let trace = file(&dir, "t.csv", text);
        let (_, error) = run(2, &["verify", &trace, limit[0], limit[1]]);
        assert!(error.contains(part), "{error}");
    }
    let good = file(&dir, "t.csv", "k,1,2,1,1\n");
    for (args, part) in [
        (&["verify", "/nowhere.csv", "--limit", "1/s"][..], "/nowhere.csv: cannot be read"),
        (&["verify", &good], "--limit \"sliding_window 50/s\" or --policies"),
        (&["verify", &good, "--limit", "often"], "fixed_window 3/day"),
        (&["load", "--limit", "1/s"], "--verify"),
        (&["load", "--verify"], "--policies"),
    ] {
        let (_, error) = run(2, args);
        assert!(error.contains(part), "{args:?}: {error}");
    }
}

const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: second, requests_per_unit: 20}}
  - {key: two, rate_limits: [{unit: second, requests_per_unit: 2}, {unit: hour, requests_per_unit: 3}]}
  - {key: file, value: 'f/*', share_threshold: true, rate_limit: {unit: second, requests_per_unit: 1}}
  - {key: shadowed, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 1}}
";

#[test]
fn keys_are_judged_by_the_limits_of_policies() {
    let dir = tempfile::tempdir().unwrap();
    let policies = file(&dir, "policies.yaml", POLICIES);
    let judged = |code, text: &str| {
        let trace = file(&dir, "t.csv", text);
        run(code, &["verify", &trace, "--policies", &policies])
    };
    judged(0, "d|k=a,1,2,20,1\nd|k=b,1,2,20,1\n");
    judged(1, "d|k=a,1,2,20,1\nd|k=a,3,4,1,1\n");
    let (text, _) = judged(1, "d|file=f/1,1,2,1,1\nd|file=f/2,3,4,1,1\n");
    assert!(text.contains("{d|file~f/*}"), "values of a pattern share a counter: {text}");
    let (text, _) = judged(1, "d|two=a,1,2,2,1\nd|two=a,2000000,2000001,2,1\n");
    assert!(text.contains("3/hour") && !text.contains("needless"), "{text}");
    let (text, _) = judged(0, "d|shadowed=a,1,2,9,1\n");
    assert!(text.contains("not judged: 1 keys in shadow mode"), "{text}");
    for (text, part) in [
        ("d|k=a,1,2,1,1\nk,1,2,1,1\n", "t.csv:2: key \"k\" is no descriptor"),
        ("e|k=a,1,2,1,1\n", "the policies are of d"),
        ("d|other=a,1,2,1,1\n", "no rule of its domain"),
    ] {
        let (_, error) = judged(2, text);
        assert!(error.contains(part), "{error}");
    }
}

/// A trace has the hits of a call, not their kinds.
#[test]
fn limits_with_a_cost_of_their_own_are_not_judged() {
    let dir = tempfile::tempdir().unwrap();
    let limit = "{unit: second, requests_per_unit: 1, cost: {output: 1/10}}";
    let policies = format!("{{domain: d, descriptors: [{{key: k, rate_limit: {limit}}}]}}");
    let policies = file(&dir, "policies.yaml", &policies);
    let trace = file(&dir, "t.csv", "d|k=a,1,2,9,1\n");
    let (text, _) = run(0, &["verify", &trace, "--policies", &policies]);
    assert!(text.contains("not judged: 1 keys of limits with a cost of their own"), "{text}");
}

/// Load on `tollgate`, and what it printed.
fn load(tollgate: &Tollgate, code: i32, flags: &[&str]) -> String {
    let url = format!("http://{}", tollgate.at.grpc);
    let fixed = ["load", &url, "--domain", "d", "--key", "k", "--duration", "2s", "--json"];
    run(code, &[&fixed, flags].concat()).0
}

fn counted(path: &Path, end: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| line.ends_with(end)).count() as f64
}

#[test]
fn record_of_a_load_is_what_the_service_counted() {
    let tollgate = Options::serving(POLICIES).start();
    let record = tollgate.dir().join("record.csv");
    let trace = record.display().to_string();
    let report = json(&load(&tollgate, 0, &["--keys", "3", "--rate", "1500", "--record", &trace]));
    assert_eq!((&report["errors"], report.get("verify")), (&Value::from(0), None), "{report}");
    let counted = |end| counted(&record, end);
    let answered = |code| tollgate.metric(&format!("tollgate_requests_total{{code=\"{code}\"}}"));
    assert_eq!(Some(counted(",1,1,0")), answered("ok"), "the warm-up included");
    assert_eq!(Some(counted(",1,0,0")), answered("over_limit"));

    let policies = tollgate.policies().display().to_string();
    let (line, _) = run(0, &["verify", &trace, "--policies", &policies, "--json"]);
    let report = json(&line);
    assert_eq!(report["counters"], 3, "{report}");
    let (needless, refused) = (report["needless"].as_u64(), report["refused"].as_u64());
    assert!(needless.unwrap() * 100 <= refused.unwrap(), "{report}");
    let efficiency = report["efficiency"].as_f64().unwrap();
    assert!((0.8..=1.1).contains(&efficiency), "{report}");
    run(1, &["verify", &trace, "--limit", "sliding_window 15/s"]);
}

#[test]
fn load_verifies_in_one_go() {
    let tollgate = Options::serving(POLICIES).start();
    let policies = tollgate.policies().display().to_string();
    let flags = ["--keys", "2", "--descriptors", "2", "--rate", "500", "--verify"];
    let by_policies = [&flags[..], &["--policies", &policies]].concat();
    let report = json(&load(&tollgate, 0, &by_policies));
    let verify = &report["verify"];
    assert_eq!((&verify["held"], &verify["counters"]), (&Value::from(true), &Value::from(2)));
    assert!(report["calls"].as_u64().unwrap() > 900, "{report}");
    assert!(verify["admitted"].as_u64().unwrap() >= 40, "{report}");
    let by_less = [&flags[..], &["--limit", "sliding_window 15/s"]].concat();
    let report = json(&load(&tollgate, 1, &by_less));
    assert_eq!(report["verify"]["held"], false, "{report}");
}

#[test]
fn degraded_answers_are_recorded_as_such() {
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let tollgate = Options::serving(POLICIES).redis(nowhere).set("store.on_failure=allow").start();
    let record = tollgate.dir().join("record.csv");
    let trace = record.display().to_string();
    load(&tollgate, 0, &["--keys", "1", "--rate", "200", "--record", &trace]);
    assert!(counted(&record, ",1,1,1") > 300.0, "degraded");
    assert!(counted(&record, ",1,1,0") < 1.0);
    let limit = ["--limit", "sliding_window 20/s"];
    run(1, &["verify", &trace, limit[0], limit[1]]);
    run(0, &["verify", &trace, limit[0], limit[1], "--ignore-degraded"]);
}

#[test]
fn record_that_cannot_be_written_is_told() {
    let tollgate = Options::serving(POLICIES).start();
    let url = format!("http://{}", tollgate.at.grpc);
    let (_, error) = run(1, &["load", &url, "--record", "/nowhere/record.csv"]);
    assert!(error.contains("/nowhere/record.csv cannot be written"), "{error}");
}
