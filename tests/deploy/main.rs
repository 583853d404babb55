//! The shipped deployment describes one stack: docker-compose.yml, deploy/demo.sh, deploy/envoy/envoy.yaml and
//! deploy/policies/edge.yaml name the same ports, paths and descriptors, and Envoy accepts its file. The workflow of CI
//! calls targets of the Makefile.
//!
//! Nothing of the stack is started here; traffic through it is the end-to-end test's.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml exempts test functions, not their helpers"
)]

mod files;
mod helm;
mod image;
mod pgo;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Output},
};

use files::{Stack, array, compose, envoy, policies, read, text};
use serde_json::Value;

#[test]
fn containers_and_native_stack_are_the_same() {
    let native = Stack::native();
    assert_eq!((native.tollgates.len(), native.backends.len()), (2, 3));
    assert_eq!(Stack::containers(), native);
}

#[test]
fn envoy_talks_to_the_ports_of_the_stack() {
    let (stack, envoy) = (Stack::native(), envoy());
    assert_eq!(socket(&envoy["static_resources"]["listeners"][0]).1, stack.edge);
    assert_eq!(socket(&envoy["admin"]), ("127.0.0.1".to_owned(), stack.envoy_admin));
    let grpc: Vec<_> = stack.tollgates.iter().map(|tollgate| tollgate.grpc).collect();
    assert_eq!(endpoints(&envoy, "ratelimit"), grpc);
    assert_eq!(endpoints(&envoy, "backends"), stack.backends);
}

#[test]
fn load_for_the_edge_goes_to_the_stack() {
    let (stack, envoy, script) = (Stack::native(), envoy(), read("tests/load/edge.js"));
    for port in [stack.edge, stack.envoy_admin] {
        assert!(script.contains(&format!("'http://127.0.0.1:{port}'")), "{port}");
    }
    let manager = connection_manager(&envoy);
    let prefix = format!("^http.{}.", text(&manager["stat_prefix"]));
    assert!(script.contains(&format!("filter={prefix}downstream_cx_active$")), "{prefix}");
    let routes = array(&manager["route_config"]["virtual_hosts"][0]["routes"]);
    let limited = routes.iter().find(|route| !route["metadata"].is_null()).unwrap();
    let path = text(&limited["match"]["prefix"]);
    assert!(script.contains(&format!("${{EDGE}}{path}")), "{path}");
}

#[test]
fn the_demo_finds_the_listener_it_moves_to_loopback() {
    let listener = format!("address: 0.0.0.0, port_value: {}", Stack::native().edge);
    assert_eq!(read("deploy/envoy/envoy.yaml").matches(&listener).count(), 1);
    let demo = read("deploy/demo.sh");
    assert!(demo.contains(
        r"s/address: 0\.0\.0\.0, port_value: ${EDGE##*:}/address: ${EDGE%:*}, port_value"
    ));
}

#[test]
fn published_ports_lead_to_listeners() {
    let (stack, compose) = (Stack::containers(), compose());
    let published: BTreeSet<_> = array(&compose["services"]["pod"]["ports"])
        .iter()
        .map(|mapping| {
            let parts: Vec<_> = text(mapping).split(':').collect();
            assert_eq!((parts.len(), parts[0], parts[1]), (3, "127.0.0.1", parts[2]), "{mapping}");
            parts[2].parse::<u16>().unwrap()
        })
        .collect();
    let listeners =
        stack.tollgates.iter().flat_map(|tollgate| [tollgate.grpc, tollgate.admin, tollgate.http]);
    let mut reachable: BTreeSet<_> = listeners.collect();
    // Prometheus and Grafana, at their usual ports.
    reachable.extend([stack.edge, 9090, 3000]);
    assert_eq!(published, reachable);

    // What is published listens on every interface of the namespace, what is not on its loopback.
    for (name, service) in compose["services"].as_object().unwrap() {
        for argument in array(&service["command"]).iter().map(text) {
            let Some((_, address)) = argument.split_once("listen=") else { continue };
            let (host, port) = address.rsplit_once(':').unwrap();
            let expected =
                if published.contains(&port.parse().unwrap()) { "0.0.0.0" } else { "127.0.0.1" };
            assert_eq!(host, expected, "{name}: {argument}");
        }
    }
    assert_eq!(socket(&envoy()["static_resources"]["listeners"][0]).0, "0.0.0.0");
}

/// What was acknowledged to operators is on a disk that outlives Redis.
#[test]
fn redis_keeps_what_operators_change() {
    let compose = compose();
    let redis = &compose["services"]["redis"];
    let command: Vec<_> = array(&redis["command"]).iter().map(text).collect();
    let durable = "--appendonly yes --appendfsync always --dir";
    assert!(command.join(" ").contains(&format!("{durable} /data")), "{command:?}");
    let [volume] = array(&redis["volumes"]) else { panic!("one volume expected: {redis}") };
    let (name, inside) = text(volume).split_once(':').unwrap();
    assert_eq!(inside, "/data");
    assert!(compose["volumes"].as_object().unwrap().contains_key(name), "{name} is no volume");
    let script = read("deploy/demo.sh").replace("\\\n", " ");
    let script = script.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(script.contains(&format!("{durable} \"$logs/redis-data\"")));
}

#[test]
fn all_containers_share_one_network_namespace() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        if name == "pod" {
            assert_eq!(service["network_mode"], Value::Null);
        } else {
            assert_eq!(service["network_mode"], "service:pod", "{name}");
            assert_eq!(service["ports"], Value::Null, "{name}");
        }
    }
}

#[test]
fn containers_run_the_envoy_that_the_tests_run() {
    let script = read("deploy/tools.sh");
    let version = script.lines().find_map(|line| line.strip_prefix("ENVOY_VERSION=")).unwrap();
    assert_eq!(
        text(&compose()["services"]["envoy"]["image"]),
        format!("envoyproxy/envoy:v{version}")
    );
}

/// Every list of keys that Envoy sends has a branch in the policies, and the other way round.
#[test]
fn policies_limit_exactly_what_envoy_asks_about() {
    let (envoy, policies) = (envoy(), policies());
    let filter = &connection_manager(&envoy)["http_filters"][0]["typed_config"];
    assert_eq!(filter["domain"], policies["domain"]);
    let sent: BTreeSet<_> = array(&filter["rate_limits"])
        .iter()
        .map(|limit| array(&limit["actions"]).iter().map(entry_key).collect::<Vec<_>>())
        .collect();
    let mut limited = BTreeSet::new();
    collect_branches(&policies, &mut Vec::new(), &mut limited);
    assert_eq!(sent, limited);

    let routed: BTreeSet<_> =
        array(&connection_manager(&envoy)["route_config"]["virtual_hosts"][0]["routes"])
            .iter()
            .filter_map(|route| route["metadata"]["filter_metadata"]["edge"]["endpoint"].as_str())
            .collect();
    let named: BTreeSet<_> = array(&policies["descriptors"])
        .iter()
        .filter(|node| node["key"] == "endpoint")
        .map(|node| text(&node["value"]))
        .collect();
    assert_eq!(routed, named);
}

#[test]
fn envoy_accepts_its_configuration() {
    let Some(output) = run_envoy(&["--mode", "validate", "-c", "deploy/envoy/envoy.yaml"]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("[warning]") && !said.contains("deprecated"), "{said}");
}

/// CI runs nothing of its own: what fails there fails for everybody who runs the same target.
#[test]
fn workflow_calls_targets_of_the_makefile() {
    let workflow: Value = serde_saphyr::from_str(&read(".github/workflows/ci.yml")).unwrap();
    let makefile = read("Makefile");
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        let runs = array(&job["steps"]).iter().filter_map(|step| step["run"].as_str());
        assert_eq!(runs.collect::<Vec<_>>(), ["make ${{ matrix.target }}"], "{name}");
        let targets = array(&job["strategy"]["matrix"]["target"]);
        assert!(!targets.is_empty(), "{name}");
        for target in targets.iter().map(text) {
            assert!(makefile.contains(&format!("\n{target}: ")), "no target {target}");
        }
    }
}

#[test]
fn pinned_rust_is_no_older_than_the_oldest_that_builds() {
    let version = |file: &str, key: &str| -> Vec<u32> {
        let text = read(file);
        let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        value.trim_matches('"').split('.').map(|part| part.parse().unwrap()).collect()
    };
    let pinned = version("rust-toolchain.toml", "channel = ");
    let oldest = version("Cargo.toml", "rust-version = ");
    assert!(pinned >= oldest, "pinned {pinned:?}, oldest {oldest:?}");
}

/// Runs the installed Envoy from the repository's root. Without one: a failure in CI, `None` and a word elsewhere.
fn run_envoy(arguments: &[&str]) -> Option<Output> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/envoy");
    let program = if installed.exists() { installed } else { PathBuf::from("envoy") };
    match Command::new(&program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let reason = format!("{}: {error}; deploy/tools.sh installs it", program.display());
            assert!(std::env::var_os("CI").is_none(), "{reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// Host and port of `holder.address.socket_address`.
fn socket(holder: &Value) -> (String, u16) {
    let socket = &holder["address"]["socket_address"];
    (
        text(&socket["address"]).to_owned(),
        u16::try_from(socket["port_value"].as_u64().unwrap()).unwrap(),
    )
}

/// The ports of a cluster, all of them on loopback.
fn endpoints(envoy: &Value, cluster: &str) -> Vec<u16> {
    let clusters = array(&envoy["static_resources"]["clusters"]);
    let found = clusters.iter().find(|candidate| candidate["name"] == cluster).unwrap();
    array(&found["load_assignment"]["endpoints"][0]["lb_endpoints"])
        .iter()
        .map(|endpoint| {
            let (host, port) = socket(&endpoint["endpoint"]);
            assert_eq!(host, "127.0.0.1", "{cluster}");
            port
        })
        .collect()
}

fn connection_manager(envoy: &Value) -> &Value {
    &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}

/// The key of the entry that an action makes.
fn entry_key(action: &Value) -> String {
    if action.get("remote_address").is_some() {
        return "remote_address".to_owned();
    }
    let (_, made) = action.as_object().unwrap().iter().next().unwrap();
    text(&made["descriptor_key"]).to_owned()
}

/// Collects the keys from the root to each node that has limits.
fn collect_branches(node: &Value, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    for child in node["descriptors"].as_array().into_iter().flatten() {
        path.push(text(&child["key"]).to_owned());
        if child.get("rate_limit").or(child.get("rate_limits")).is_some() {
            found.insert(path.clone());
        }
        collect_branches(child, path, found);
        path.pop();
    }
}

/// Prometheus of the containers has the file of the native stack, which scrapes the ports of both; Grafana has
/// every dashboard, by a data source that is there.
#[test]
fn observation_fits_the_stack() {
    let (stack, services) = (Stack::native(), compose()["services"].clone());
    let scraped = files::yaml("deploy/prometheus/prometheus.yml");
    let jobs = array(&scraped["scrape_configs"]);
    let targets = |job: usize| array(&jobs[job]["static_configs"][0]["targets"]).to_vec();
    let of = |port: u16| Value::from(format!("127.0.0.1:{port}"));
    let http: Vec<Value> = stack.tollgates.iter().map(|tollgate| of(tollgate.http)).collect();
    assert_eq!((text(&jobs[0]["job_name"]), targets(0)), ("tollgate", http));
    assert_eq!((text(&jobs[1]["job_name"]), targets(1)), ("envoy", vec![of(stack.envoy_admin)]));
    for (service, mounted) in [
        ("prometheus", "./deploy/prometheus:/etc/prometheus:ro"),
        ("alertmanager", "./deploy/alertmanager:/etc/alertmanager:ro"),
        ("grafana", "./deploy/grafana/dashboards:/etc/grafana/dashboards:ro"),
        ("otel-collector", "./deploy/otel/collector.yaml:/etc/otelcol/config.yaml:ro"),
        ("promtail", "./deploy/loki/promtail.yaml:/etc/promtail/config.yml:ro"),
    ] {
        let volumes = array(&services[service]["volumes"]);
        assert!(volumes.iter().any(|volume| volume == mounted), "{service}: {volumes:?}");
        let host = mounted.split(':').next().unwrap();
        assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(host).exists(), "{host}");
    }
    for (service, profile) in [("otel-collector", "traces"), ("loki", "logs"), ("promtail", "logs")]
    {
        assert_eq!(services[service]["profiles"], Value::from(vec![profile]), "{service}");
    }
    let source = files::yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["url"], "http://127.0.0.1:9090");
    let provider = files::yaml("deploy/grafana/provisioning/dashboards/tollgate.yml");
    assert_eq!(provider["providers"][0]["options"]["path"], "/etc/grafana/dashboards");
    let mut panels = 0;
    let mut names = BTreeSet::new();
    for dashboard in ["clients", "decisions", "latency", "store"] {
        let read: Value =
            serde_json::from_str(&read(&format!("deploy/grafana/dashboards/{dashboard}.json")))
                .unwrap();
        assert!(names.insert(text(&read["uid"]).to_owned()), "{dashboard}");
        for panel in array(&read["panels"]) {
            panels += 1;
            assert!(
                !text(&panel["description"]).is_empty() && !array(&panel["targets"]).is_empty()
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
    assert!(panels >= 16, "{panels}");
}

/// Receivers, routes and inhibitions name what there is.
#[test]
fn alertmanager_routes_to_its_receivers() {
    let config = files::yaml("deploy/alertmanager/alertmanager.yml");
    let receivers: Vec<&str> =
        array(&config["receivers"]).iter().map(|receiver| text(&receiver["name"])).collect();
    let routes = array(&config["route"]["routes"]).iter().chain([&config["route"]]);
    for route in routes {
        assert!(receivers.contains(&text(&route["receiver"])), "{route}");
    }
    let alerts = read("deploy/prometheus/alerts.yml");
    for rule in array(&config["inhibit_rules"]) {
        let matchers =
            array(&rule["source_matchers"]).iter().chain(array(&rule["target_matchers"]));
        for name in matchers.flat_map(|matcher| text(matcher).split(['"', '|']).skip(1)) {
            let named = name.is_empty() || alerts.contains(&format!("alert: {name}\n"));
            assert!(named, "no alert {name}");
        }
    }
}
