//! The Helm chart: `helm lint`, the rendered examples as they are checked in, each object against the schemas of
//! Kubernetes, and the environment of the container against the settings of the real binary.
//!
//! `UPDATE_DOCS=1` renders the examples anew.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::files::{array, read, text};

const CHART: &str = "deploy/helm/tollgate";

/// The rendered examples, each with its arguments.
const EXAMPLES: [(&str, &[&str]); 2] = [
    ("default", &["--set", "redis.url=redis://redis:6379"]),
    ("full", &["--values", "deploy/helm/full.yaml"]),
];

/// Runs helm in the root of the repository; none where it is not installed.
fn helm(arguments: &[&str]) -> Option<Output> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join(".tools/bin/helm");
    if !program.exists() {
        assert!(std::env::var_os("CI").is_none(), "helm is needed: run deploy/tools.sh");
        eprintln!("SKIPPED: helm is not installed; deploy/tools.sh installs it");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let homes = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
    let homes = homes.map(|home| (home, dir.path()));
    Some(Command::new(program).args(arguments).envs(homes).current_dir(root).output().unwrap())
}

fn rendered(arguments: &[&str]) -> Option<String> {
    let mut all = vec!["template", "tollgate", CHART, "--namespace", "edge"];
    all.extend(arguments);
    let output = helm(&all)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn objects(yaml: &str) -> Vec<Value> {
    let documents = yaml.split("\n---\n").map(|text| text.trim_start_matches("---\n"));
    let objects = documents.filter(|text| text.lines().any(|line| !line.starts_with('#')));
    objects.map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

fn container(objects: &[Value]) -> &Value {
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn chart_passes_lint() {
    for (name, arguments) in EXAMPLES {
        let mut all = vec!["lint", "--strict", CHART];
        all.extend(arguments);
        let Some(output) = helm(&all) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said}");
    }
}

#[test]
fn rendered_examples_are_those_of_the_chart() {
    for (name, arguments) in EXAMPLES {
        let Some(text) = rendered(arguments) else { return };
        let file = format!("deploy/helm/rendered/{name}.yaml");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file), &text).unwrap();
        }
        assert!(read(&file) == text, "{file} is old: UPDATE_DOCS=1 cargo test --test deploy helm");
    }
}

#[test]
fn values_that_are_unknown_are_refused() {
    for (set, reason) in [
        ("replica=3", "schema"),
        ("replicas=0", "schema"),
        ("compat=limitador", "schema"),
        ("redis.address=x", "schema"),
        // It would stand in the Deployment for all to read.
        ("redis.url=redis://:password@redis:6379", "schema"),
        ("autoscaling.enabled=true,autoscaling.minReplicas=9", "raise maxReplicas"),
    ] {
        let Some(output) = helm(&["template", CHART, "--set", set]) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{set}: {said}");
    }
}

/// The objects that each example has, by kind, and what they must agree on.
#[test]
fn objects_agree_with_each_other() {
    let kinds = |name: &str| -> Vec<String> {
        let all = objects(&read(&format!("deploy/helm/rendered/{name}.yaml")));
        let mut kinds: Vec<String> =
            all.iter().map(|object| text(&object["kind"]).to_owned()).collect();
        kinds.sort();
        kinds
    };
    let few =
        ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "Service", "ServiceAccount"];
    assert_eq!(kinds("default"), few);
    let all = [
        "ConfigMap",
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    ];
    assert_eq!(kinds("full"), all);
    for (name, _) in EXAMPLES {
        let all = objects(&read(&format!("deploy/helm/rendered/{name}.yaml")));
        let container = container(&all);
        let mounted: Vec<&str> = array(&container["volumeMounts"])
            .iter()
            .map(|mount| text(&mount["mountPath"]))
            .collect();
        // Each file that a variable names is below a mounted directory.
        for variable in array(&container["env"]) {
            let value = text(&variable["value"]);
            let is_mounted = mounted.iter().any(|path| value.starts_with(path));
            assert!(!value.starts_with("/etc") || is_mounted, "{variable}");
        }
        let ports: Vec<&Value> =
            array(&container["ports"]).iter().map(|port| &port["name"]).collect();
        for service in all.iter().filter(|object| object["kind"] == "Service") {
            for port in array(&service["spec"]["ports"]) {
                assert!(ports.contains(&&port["targetPort"]), "{port}");
            }
        }
    }
    let full = objects(&read("deploy/helm/rendered/full.yaml"));
    let of = |kind: &str| full.iter().find(|object| object["kind"] == kind).unwrap();
    let most = of("HorizontalPodAutoscaler")["spec"]["maxReplicas"].to_string();
    let variable = array(&container(&full)["env"])
        .iter()
        .find(|variable| variable["name"] == "TOLLGATE__FAILOVER__REPLICAS");
    assert_eq!(text(&variable.unwrap()["value"]), most, "shares are for the most replicas");
    let rules = &of("PrometheusRule")["spec"]["groups"];
    let of_file: Value = serde_saphyr::from_str(&read("deploy/prometheus/alerts.yml")).unwrap();
    let alerts = array(&rules[1]["rules"]).len();
    assert_eq!(alerts, array(&of_file["groups"][0]["rules"]).len());
}

/// The binary takes the environment of the rendered container, with its files in another place.
#[test]
fn environment_is_accepted_by_the_binary() {
    for (name, _) in EXAMPLES {
        let all = objects(&read(&format!("deploy/helm/rendered/{name}.yaml")));
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.env_clear().arg("print-config");
        for variable in array(&container(&all)["env"]) {
            let value = text(&variable["value"]);
            let place = value.strip_prefix("/etc/tollgate/").map(|inside| dir.path().join(inside));
            if let Some(place) = &place {
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                let content =
                    if place.ends_with("redis/url") { "redis://redis:6379" } else { "s3cret" };
                if !place.ends_with("policies") {
                    std::fs::write(place, content).unwrap();
                }
            }
            let value = place.map_or_else(|| value.to_owned(), |place| place.display().to_string());
            command.env(text(&variable["name"]), value);
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{name}: {errors}");
    }
}

/// The schemas of Kubernetes are those of the Python package kubernetes-validate.
#[test]
fn objects_fit_the_schemas_of_kubernetes() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/kubernetes/bin/python");
    if !python.exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "kubernetes-validate is needed: run deploy/tools.sh"
        );
        eprintln!("SKIPPED: kubernetes-validate is not installed; deploy/tools.sh installs it");
        return;
    }
    let check = "import json, sys, kubernetes_validate as k\n\
                 for o in json.load(sys.stdin): k.validate(o, '1.35', strict=True)";
    for (name, _) in EXAMPLES {
        let mut all = objects(&read(&format!("deploy/helm/rendered/{name}.yaml")));
        // Kinds of the Prometheus operator, which Kubernetes does not know.
        all.retain(|object| !text(&object["apiVersion"]).starts_with("monitoring.coreos.com/"));
        let mut child = Command::new(&python)
            .args(["-c", check])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let json = Value::from(all).to_string();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), json.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
