//! The load generator against the real service: what it reports is what happened.

use serde_json::Value;

use crate::support::tollgate::{Options, Tollgate, command};

const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: hour, requests_per_unit: 5}}
";

fn load(tollgate: &Tollgate, flags: &[&str]) -> Value {
    let url = format!("http://{}", tollgate.at.grpc);
    let fixed = ["--domain", "d", "--key", "k", "--duration", "500ms", "--json"];
    let mut command = command();
    let output = command.arg("load").arg(url).args(fixed).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or_else(|| panic!("no {field} in {report}"))
}

#[test]
fn closed_loop_counts_what_the_service_counted() {
    let tollgate = Options::serving(POLICIES).start();
    let pid = tollgate.pid().to_string();
    let report = load(&tollgate, &["--keys", "2", "--descriptors", "2", "--pid", &pid]);
    assert_eq!(report["errors"], 0, "{report}");
    let calls = number(&report, "calls");
    assert!(calls > 100.0, "{report}");
    let answered = |code| tollgate.metric(&format!("tollgate_requests_total{{code=\"{code}\"}}"));
    let all = answered("ok").unwrap() + answered("over_limit").unwrap();
    // What warmed up is not reported.
    assert!(all >= calls, "{all} answered, {calls} reported");
    assert!(number(&report, "over_limit") <= answered("over_limit").unwrap());
    assert!(number(&report, "over_limit") >= calls - 10.0, "two keys of five hits each pass");
    let decisions = number(&report, "decisions_per_second") / number(&report, "calls_per_second");
    assert!((decisions - 2.0).abs() < 1e-6);
    assert!(number(&report, "p50_ms") <= number(&report, "p99_ms"));
    assert!(report["cpu_seconds"][0][1].as_f64().is_some(), "{report}");
}

#[test]
fn open_loop_keeps_to_its_rate() {
    let tollgate = Options::serving(POLICIES).start();
    let report = load(&tollgate, &["--rate", "400", "--spread", "zipf"]);
    let due = number(&report, "calls") + number(&report, "missed");
    assert!((190.0..=210.0).contains(&due), "{report}");
}

#[test]
fn nobody_there_is_told_with_what_to_write() {
    let output =
        command().args(["load", "http://127.0.0.1:1", "--duration", "1s"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("http://127.0.0.1:1") && said.contains("http://HOST:PORT"), "{said}");
    let output = command().args(["load", "--connections", "0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--connections"));
}
