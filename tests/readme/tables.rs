//! Tables of the README and the docs against the code: keys of policies, bounds, metrics. And the names in the prose.

use std::collections::BTreeMap;
use std::process::Command;

use tollgate::config::{Key, Section};
use tollgate::policy;

use crate::markdown::{self, Page, pages, table};
use crate::support::certs::Authority;
use crate::support::http::post;
use crate::support::redis::free_port;
use crate::support::tollgate::{Options, command};

#[test]
fn settings_in_the_prose_exist() {
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = 0;
    for span in code_spans() {
        let name = span.split([':', '=', ' ']).next().unwrap();
        let Some((section, key)) = name.rsplit_once('.') else { continue };
        // A file of that name.
        if key == "yaml" {
            continue;
        }
        if Section::find(section).is_some() && !key.is_empty() && key.chars().all(word) {
            found += 1;
            assert!(Key::find(&format!("{section}.{key}")).is_some(), "no setting {span}");
        }
    }
    // Those of the table, and some more.
    assert!(found > Key::all().count(), "only {found} settings are named");
}

#[test]
fn bounds_are_all_there_with_their_defaults() {
    let bounds = Section::find("bounds").unwrap();
    let expected: Vec<_> = bounds
        .keys
        .iter()
        .map(|key| [format!("`{}`", key.dotted(bounds)), key.default.to_owned()])
        .collect();
    let listed: Vec<_> = table("bounds")
        .into_iter()
        .map(|cells| [cells[0].clone(), cells[1].replace(' ', "")])
        .collect();
    assert_eq!(listed, expected);
}

/// A table that repeats a part of another says nothing else.
#[test]
fn rows_that_stand_in_two_pages_are_the_same() {
    let mut found = 0;
    for page in pages() {
        for (other, rows) in page.tables_after("also in:") {
            let whole = markdown::page(&other).text;
            for row in rows {
                found += 1;
                let same = whole.lines().any(|line| line == row);
                assert!(same, "{}: {other} has no row\n{row}", page.path);
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn policy_keys_are_all_there() {
    let listed = |kind: &str| -> Vec<String> {
        let rows = table(&format!("keys: {kind}"));
        sorted(rows.into_iter().map(|cells| cells[0].trim_matches('`').to_owned()))
    };
    let [file, descriptor, limit, replaces, lease, calendar, signs, hold, estimate, adapts, target] =
        policy::KEYS;
    let all = |of: &[(&str, (&str, &[&str]))]| {
        let keys = of
            .iter()
            .flat_map(|(above, (_, keys))| keys.iter().map(move |key| format!("{above}{key}")));
        sorted(keys)
    };
    assert_eq!(listed(file.0), all(&[("", file), ("signs.", signs)]));
    let of_descriptor = [("", descriptor), ("adaptive.", adapts), ("adaptive.target.", target)];
    assert_eq!(listed(descriptor.0), all(&of_descriptor));
    let of_limit = [
        ("", limit),
        ("replaces[].", replaces),
        ("lease.", lease),
        ("calendar.", calendar),
        ("hold.", hold),
        ("hold.estimate.", estimate),
    ];
    assert_eq!(listed(limit.0), all(&of_limit));
}

#[test]
fn metrics_are_all_there_with_their_labels() {
    let mut exposed = metrics();
    for (mark, prefix) in
        [("metrics", "tollgate_"), ("metrics: process", "process_"), ("metrics: reference", "")]
    {
        let listed: BTreeMap<_, _> = table(mark)
            .into_iter()
            .map(|cells| (cells[0].replace('`', ""), labels_of(&cells[1].replace(['`', ' '], ""))))
            .collect();
        let of_table: BTreeMap<_, _> =
            exposed.extract_if(.., |name, _| name.starts_with(prefix)).collect();
        assert_eq!(listed, of_table, "{mark}");
    }
}

/// A misspelt name in a rule or a panel would show nothing, and no alert.
#[test]
fn metrics_of_rules_and_dashboards_exist() {
    let known = ["metrics", "metrics: process"].into_iter().flat_map(table);
    let known: Vec<_> = known.map(|cells| cells[0].replace('`', "")).collect();
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    let dashboards = ["clients", "decisions", "latency", "store"]
        .map(|name| format!("deploy/grafana/dashboards/{name}.json"));
    let rules = ["recording", "alerts"].map(|name| format!("deploy/prometheus/{name}.yml"));
    let mut found = 0;
    for file in dashboards.iter().chain(&rules) {
        let text = std::fs::read_to_string(markdown::root().join(file)).unwrap();
        for (start, _) in
            ["tollgate_", "process_"].into_iter().flat_map(|prefix| text.match_indices(prefix))
        {
            let name = text[start..].split(|c| !word(c)).next().unwrap();
            let suffixes = ["_bucket", "_count", "_sum"];
            let metric =
                suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            let exists = known.iter().any(|known| known == name || known == metric);
            assert!(exists, "{file}: no metric {name}");
            found += 1;
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn metrics_in_the_prose_exist() {
    let tables = ["metrics", "metrics: process", "metrics: reference"].into_iter().flat_map(table);
    let known: Vec<_> = tables.map(|cells| cells[0].replace('`', "")).collect();
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    for span in code_spans() {
        let prefixes = ["tollgate_", "ratelimit_service_"];
        for (start, _) in prefixes.into_iter().flat_map(|prefix| span.match_indices(prefix)) {
            let name = span[start..].split(|c| !word(c)).next().unwrap();
            let metric = name.trim_end_matches("_bucket");
            assert!(known.iter().any(|known| known == metric), "no metric {span}");
        }
    }
}

/// The names that a running tollgate exposes, each with its labels. Redis is away, as there are errors to count then,
/// and the gRPC listener has TLS.
fn metrics() -> BTreeMap<String, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let pair = Authority::new("docs").issue(dir.path(), "server", &["localhost"]);
    let tollgate = Options::default()
        .redis(format!("redis://127.0.0.1:{}", free_port()))
        .set(format!("grpc.tls.cert_file={}", pair.cert.display()))
        .set(format!("grpc.tls.key_file={}", pair.key.display()))
        .set("metrics.names=both")
        .start();
    let grpc = tollgate.at.grpc;
    let port = grpc.port();
    let hello =
        format!("openssl s_client -connect {grpc} < /dev/null; echo > /dev/tcp/127.0.0.1/{port}");
    drop(Command::new("bash").args(["-c", &hello]).output().unwrap());
    let refused = "tollgate_connections_refused_total{listener=\"grpc\",reason=\"plain_text\"}";
    tollgate.wait_for_metric(refused, 1.0);
    let http = tollgate.at.http;
    let request = r#"{"domain":"example","descriptors":[{"entries":[{"key":"path","value":"/api/v1/prices/A"}]}]}"#;
    curl(&["-d", request, &format!("http://{http}/json")]);
    // A rule of two nodes has all labels. It is denied while Redis is away.
    let request = r#"{"domain":"example","descriptors":[{"entries":[{"key":"path","value":"/api/v1/orders"},
        {"key":"api_key","value":"k"}]}]}"#;
    assert_eq!(post(http, "/json", request).status, 429);
    let mut all = all_exposed(&curl(&[&format!("http://{http}/metrics")]));
    all.extend(metrics_of_a_turned_rule());
    all
}

/// The same of one whose registry takes a change, and that has a rule that adapts.
fn metrics_of_a_turned_rule() -> BTreeMap<String, Vec<String>> {
    let policy = "{domain: d, descriptors: [{key: k, rate_limit: {algorithm: concurrency, max: 5},
        adaptive: {target: {p95: 1s}}}]}";
    let tollgate = Options::serving(policy).start();
    let address = format!("http://{}", tollgate.at.admin);
    let turn = ["admin", "scale", "set", "d", "k", "50%", "--address", &address];
    assert!(command().args(turn).output().unwrap().status.success());
    tollgate.wait_for_metric("tollgate_adaptive_blind{domain=\"d\",rule=\"k\"}", 0.0);
    all_exposed(&curl(&[&format!("http://{}/metrics", tollgate.at.http)]))
}

fn all_exposed(text: &str) -> BTreeMap<String, Vec<String>> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| exposed(text, name, kind)).collect()
}

fn exposed(text: &str, name: &str, kind: &str) -> (String, Vec<String>) {
    let (name, sample) = match kind {
        "counter" => (format!("{name}_total"), format!("{name}_total")),
        "info" => (format!("{name}_info"), format!("{name}_info")),
        "histogram" => (name.to_owned(), format!("{name}_count")),
        _ => (name.to_owned(), name.to_owned()),
    };
    let line = text.lines().find_map(|line| line.strip_prefix(&sample));
    let line = line.unwrap_or_else(|| panic!("no sample of {name} in\n{text}"));
    let inside = line.strip_prefix('{').map_or("", |rest| rest.rsplit_once('}').unwrap().0);
    let mut parts: Vec<_> = inside.split("=\"").collect();
    parts.pop();
    let names = parts.into_iter().map(|part| part.rsplit(',').next().unwrap().to_owned());
    (name, sorted(names))
}

fn labels_of(cell: &str) -> Vec<String> {
    sorted(cell.split(',').filter(|label| !label.is_empty()).map(ToOwned::to_owned))
}

fn code_spans() -> Vec<String> {
    pages().iter().flat_map(Page::code_spans).collect()
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").args(["-fsS"]).args(args).output().expect("curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
