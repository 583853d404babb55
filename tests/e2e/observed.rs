//! What an operator sees of the demo: every query of the dashboards, every recorded rate and every alert, by the real
//! Prometheus of the demo, for traffic whose counts are known.

mod held;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tollgate::edge::admin::pb::Unit::Day;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;

use self::held::Holders;
use crate::demo::{Demo, can_run, is_busy};
use crate::stack::alone;
use crate::support::grpc::{Client, codes};
use crate::support::operator::{Operator, client, limit};
use crate::support::tollgate::{Tollgate, request};
use crate::support::wait::until;

const PROMETHEUS: &str = "127.0.0.1:9090";
const TOLLGATES: [&str; 2] = ["127.0.0.1:8081", "127.0.0.1:8091"];
const ADMIN: &str = "127.0.0.1:8082";

const POLICY: &str = "
domain: observed
descriptors:
  - {key: user, rate_limit: {name: daily, unit: day, requests_per_unit: 10}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: tokens, rate_limit: {unit: day, requests_per_unit: 1000, hold: {ttl: 1h, estimate: {default: 2}}}}
  - {key: job, rate_limit: {algorithm: concurrency, max: 4, ttl: 1h}}
  - {key: unheard, rate_limit: {unit: second, requests_per_unit: 1000}, adaptive: {target: {errors: 5%, p95: 1s}}}
";

/// What a query returns.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Series whose values add up to this.
    Sum(f64),
    /// Series, one of them above zero.
    Positive,
    /// Series, whatever their values.
    Something,
    /// No series, or zero.
    Nothing,
    /// It depends on the speed of the machine.
    Any,
}

/// The result of a query: values, each with its labels.
fn query(expression: &str) -> Vec<(Value, f64)> {
    let output = Command::new("curl")
        .args(["-sG", &format!("http://{PROMETHEUS}/api/v1/query")])
        .args(["--data-urlencode", &format!("query={expression}")])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    let series = answer["data"]["result"].as_array().unwrap();
    let value = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
    series.iter().map(|one| (one["metric"].clone(), value(one))).collect()
}

fn sum(expression: &str) -> f64 {
    query(expression).into_iter().map(|(_, value)| value).sum()
}

fn equal(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

fn check(name: &str, expression: &str, expected: Expected) {
    let found = query(expression);
    let holds = match expected {
        Expected::Sum(sum) => {
            !found.is_empty() && equal(found.iter().map(|(_, value)| value).sum(), sum)
        }
        Expected::Positive => found.iter().any(|(_, value)| *value > 0.0),
        Expected::Something => !found.is_empty(),
        Expected::Nothing => found.iter().all(|(_, value)| equal(*value, 0.0)),
        Expected::Any => true,
    };
    assert!(holds, "{name}: expected {expected:?} of\n{expression}\nfound {found:?}");
}

/// The queries of all dashboards by title of their panel, with what Grafana puts into them.
fn dashboards() -> BTreeMap<String, Vec<String>> {
    let mut panels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in std::fs::read_dir("deploy/grafana/dashboards").unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().unwrap() {
                let expression = target["expr"].as_str().unwrap();
                let filled = ["$instance", "$domain", "$rule"]
                    .iter()
                    .fold(expression.to_owned(), |text, variable| text.replace(variable, ".*"))
                    .replace("$__rate_interval", "1m");
                assert!(!filled.contains('$'), "{title}: {filled}");
                panels.entry(title.to_owned()).or_default().push(filled);
            }
        }
    }
    panels
}

/// The expressions of the rules of a file, by name.
fn rules(file: &str, name: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).unwrap();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    let rules = read["groups"][0]["rules"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules.iter().map(|rule| (text(&rule[name]), text(&rule["expr"]))).collect()
}

struct Traffic {
    clients: [Client; 2],
    holders: Holders,
    operator: Operator,
}

impl Traffic {
    async fn start() -> Self {
        let connect = async |address: &str| {
            RateLimitServiceClient::new(Tollgate::channel(address.parse().unwrap()).await)
        };
        let clients = [connect(TOLLGATES[0]).await, connect(TOLLGATES[1]).await];
        let operator = Operator::at(ADMIN.parse().unwrap()).await.unwrap().with("Bearer demo");
        operator.apply(POLICY).await;
        for value in ["vip-1", "vip-2"] {
            let one = client("observed", ("user", value), limit(1, Day));
            operator.upsert(one).await.unwrap();
        }
        operator.turn("observed", "job", 60.0).await;
        // Both have the policy, the clients and the scale.
        seen("count(tollgate_scale == 0.6)", 2.0).await;
        let traffic = Self { clients, holders: Holders::of(TOLLGATES).await, operator };
        until("both replicas follow", async || {
            let revisions = query("tollgate_registry_revision");
            let same = revisions.len() == 2 && equal(revisions[0].1, revisions[1].1);
            (same && revisions[0].1 >= 3.0).then_some(())
        })
        .await;
        traffic
    }

    /// Per replica, with values of its own: 7 hits of 10 that pass, 3 near the limit, 4 over it; 2
    /// and 2 before 3 shadowed ones; a client within and over its limit; 2 hits that nothing limits, and 3 of a
    /// domain that has no policy. One request of a rule that adapts, of which nobody reports; and
    /// the holds, where one is over the limit.
    async fn round(&mut self, name: &str) {
        for (replica, client) in self.clients.iter_mut().enumerate() {
            let value = format!("{name}-{replica}");
            for (domain, key, value, times, passed) in [
                ("observed", "user", value.as_str(), 14, 10),
                ("observed", "trial", &value, 7, 7),
                ("observed", "unheard", &value, 1, 1),
                ("observed", "nothing", &value, 2, 2),
                ("nowhere", "nothing", &value, 3, 3),
            ] {
                let found = codes(client, &request(domain, &[&[(key, value)]]), times).await;
                let found = found.into_iter().filter(|code| *code == Code::Ok).count();
                assert_eq!(found, passed, "{domain} {key}");
            }
        }
        let vip = request("observed", &[&[("user", name)]]);
        assert_eq!(
            codes(&mut self.clients[0], &vip, 3).await,
            [Code::Ok, Code::OverLimit, Code::OverLimit]
        );
        self.holders.round(name).await;
    }
}

/// Waits until Prometheus has seen this sum.
async fn seen(expression: &str, least: f64) {
    until(expression, async || (sum(expression) >= least).then_some(())).await;
}

fn exact_counts() {
    let of =
        |labels: &str| format!("sum(tollgate_decisions_total{{domain=\"observed\",{labels}}})");
    for (labels, expected) in [
        ("rule=\"user\",limit=\"daily\",outcome=\"admitted\"", 4.0 * 7.0),
        ("rule=\"user\",limit=\"daily\",outcome=\"near_limit\"", 4.0 * 3.0),
        ("rule=\"user\",limit=\"daily\",outcome=\"over_limit\"", 4.0 * 4.0),
        ("rule=\"user\",limit=\"(client)\",outcome=\"near_limit\"", 2.0),
        ("rule=\"user\",limit=\"(client)\",outcome=\"over_limit\"", 4.0),
        ("rule=\"job\",outcome=\"over_limit\"", 4.0),
        ("rule=\"trial\",limit=\"4/DAY\",outcome=\"admitted\"", 4.0 * 3.0),
        ("rule=\"trial\",limit=\"4/DAY\",outcome=\"near_limit\"", 4.0),
        ("rule=\"trial\",limit=\"4/DAY\",outcome=\"shadowed\"", 4.0 * 3.0),
    ] {
        check(labels, &of(labels), Expected::Sum(expected));
        check(labels, &of(labels).replace("decisions", "hits"), Expected::Sum(expected));
    }
    check("unmatched", "sum(tollgate_unmatched_total{domain=\"observed\"})", Expected::Sum(8.0));
    check("unknown", "sum(tollgate_unknown_domain_requests_total)", Expected::Sum(12.0));
    held::exact_counts();
}

/// What panels show in both states; the others show a value above zero.
fn of_panel(title: &str, incident: bool) -> Expected {
    let during = |calm, at_incident| if incident { at_incident } else { calm };
    match title {
        "Store" => during(Expected::Sum(1.0), Expected::Sum(0.0)),
        // The replica that controls the rules that adapt needs the registry.
        "Registry" | "Adaptive rules without reports" => during(Expected::Sum(1.0), Expected::Any),
        "Last reload" => Expected::Sum(1.0),
        "Replicas seen" | "Clients" => Expected::Sum(2.0),
        "Connections refused or cut" => Expected::Nothing,
        "Rules turned down" => Expected::Sum(0.6),
        "Settlements" => during(Expected::Sum(0.0), Expected::Positive),
        "Requests that the store did not decide" | "Limits decided without the store" => {
            during(Expected::Something, Expected::Positive)
        }
        // Redis has not been away before.
        "Hits of outages" => during(Expected::Nothing, Expected::Any),
        // Between two calls to Redis there are none in flight. No limit is leased, and the deny
        // cache answers only what follows a denial. Counters are in Redis.
        "Calls in flight" | "Spared calls" | "Counters in memory" | "Memory" => Expected::Something,
        _ => Expected::Positive,
    }
}

fn of_recording(name: &str, incident: bool) -> Expected {
    match name {
        "tollgate:degraded:ratio5m" if !incident => Expected::Nothing,
        _ => Expected::Positive,
    }
}

/// The alerts whose expression holds.
fn of_alert(name: &str, incident: bool) -> Expected {
    match name.trim_start_matches("Tollgate") {
        "StoreDown" if incident => Expected::Something,
        "Degraded" if incident => Expected::Positive,
        // The traffic is such.
        "UnknownDomain" => Expected::Positive,
        "AdaptiveBlind" => of_panel("Adaptive rules without reports", incident),
        "DecisionsSlow" | "RedisSlow" | "ProcessLate" => Expected::Any,
        "RegistryDown" | "ReplicasDiffer" | "RegistryNotWritable" if incident => Expected::Any,
        _ => Expected::Nothing,
    }
}

fn check_all(incident: bool) {
    for (title, expressions) in dashboards() {
        // One of the queries of a panel is enough.
        let expected = of_panel(&title, incident);
        let all = expressions.join("\nor ");
        if expressions.len() > 1 && matches!(expected, Expected::Positive) {
            assert!(expressions.iter().any(|expression| sum(expression) > 0.0), "{title}: {all}");
        } else {
            for expression in expressions {
                check(&title, &expression, expected);
            }
        }
    }
    for (name, expression) in rules("deploy/prometheus/recording.yml", "record") {
        check(&name, &name, of_recording(&name, incident));
        check(&name, &expression, of_recording(&name, incident));
    }
    for (name, expression) in rules("deploy/prometheus/alerts.yml", "alert") {
        check(&name, &expression, of_alert(&name, incident));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_has_the_value_of_the_traffic() {
    if !can_run() {
        return;
    }
    let _alone = alone().await;
    if is_busy() {
        return;
    }
    let logs = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(logs.path(), &[], "1s");
    demo.ready().await;
    let mut traffic = Traffic::start().await;
    // A rate needs a series that is there before.
    traffic.round("vip-1").await;
    let over = "sum(tollgate_decisions_total{domain=\"observed\",outcome=\"over_limit\"})";
    seen(over, 2.0 * 5.0 + 2.0).await;
    let edge = "for i in 1 2 3 4 5 6; do curl -s -o /dev/null http://127.0.0.1:10000/api/v1/prices/ACME; done";
    assert!(Command::new("bash").args(["-c", edge]).status().unwrap().success());
    traffic.round("vip-2").await;
    seen(over, 4.0 * 5.0 + 4.0).await;
    seen("tollgate:degraded:ratio5m + 1", 1.0).await;
    seen("sum(tollgate:rule_hits:rate1m{domain=\"observed\"}) > 0", 1e-9).await;
    seen("sum(tollgate_adaptive_blind{domain=\"observed\",rule=\"unheard\"})", 1.0).await;
    exact_counts();
    check_all(false);

    let children = demo.children();
    let redis = children.iter().find(|(_, name)| name.starts_with("redis")).unwrap().0;
    signal(redis, "STOP");
    let degraded = "sum(tollgate_decisions_total{outcome=~\"degraded_.*\"})";
    let waiting = traffic.holders.settle_in_outage().await;
    assert_eq!(waiting, 4, "one of each round and replica");
    for (round, least) in [("out-1", 22.0), ("out-2", 44.0)] {
        for client in &mut traffic.clients {
            codes(client, &request("observed", &[&[("user", round)]]), 10).await;
        }
        traffic.holders.hold_in_outage(round).await;
        seen(degraded, least).await;
    }
    seen("sum(rate(tollgate_degraded_claims_total[1m])) > 0", 1e-9).await;
    seen("tollgate:degraded:ratio5m > 0.01", 1e-9).await;
    seen("count(tollgate_store_up == 0)", 2.0).await;
    check("waiting", "sum(tollgate_settle_queue)", Expected::Sum(4.0));
    check_all(true);
    signal(redis, "CONT");
    seen("count(tollgate_store_up == 1)", 2.0).await;
    check("StoreDown", "tollgate_store_up == 0", Expected::Nothing);
    held::all_settled(waiting).await;
    traffic.operator.delete_policy("observed").await;
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn rules_and_alerts_pass_promtool() {
    if !crate::support::tools::is_there("promtool") {
        return;
    }
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus"))
            .output()
            .unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{arguments:?}\n{out}\n{err}");
    };
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "recording.yml", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
    let tests = std::fs::read_to_string("deploy/prometheus/alerts_test.yml").unwrap();
    for name in rules("deploy/prometheus/alerts.yml", "alert").keys() {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
    }
}

/// Every alert has a runbook, and every runbook of an alert is linked.
#[test]
fn alerts_link_to_their_runbooks() {
    let runbooks = std::fs::read_to_string("docs/runbooks.md").unwrap();
    let anchors: Vec<String> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let alerts = std::fs::read_to_string("deploy/prometheus/alerts.yml").unwrap();
    let links: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.split_once("runbook_url: docs/runbooks.md#"))
        .map(|(_, anchor)| anchor)
        .collect();
    assert_eq!(links.len(), rules("deploy/prometheus/alerts.yml", "alert").len());
    for link in &links {
        assert!(anchors.iter().any(|anchor| anchor == link), "no runbook {link}");
    }
    // The last two are for complaints.
    assert_eq!(anchors.len(), links.len() + 2);
}
