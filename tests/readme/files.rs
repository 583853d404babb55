//! Files that the README and the docs show: policies compile, settings load, Envoy's filter is the shipped one, and
//! what they name exists.

use std::fs;

use serde_json::Value;
use tollgate::config::{self, Key, Settings, Sources};
use tollgate::policy::{Options, Source, compile};

use crate::markdown::{Block, Page, pages, root};

#[test]
fn every_yaml_block_says_what_it_is() {
    let blocks: Vec<_> = pages().iter().flat_map(Page::blocks).collect();
    for block in blocks.iter().filter(|block| block.language == "yaml") {
        let mark = block.mark.as_deref().unwrap_or_default();
        let known = matches!(mark, "policy" | "settings" | "envoy" | "kubernetes")
            || mark.starts_with("file ");
        assert!(known, "{}: {mark:?}", block.place);
    }
}

#[test]
fn policies_compile_without_faults_and_warnings() {
    for block in marked("policy") {
        let source = Source::new(block.place, block.text);
        let compiled = compile(&[source], &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
    }
}

#[test]
fn settings_load() {
    let dir = tempfile::tempdir().unwrap();
    for block in marked("settings") {
        let file = dir.path().join("tollgate.yaml");
        fs::write(&file, block.text).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        config::load(&sources).unwrap_or_else(|faults| panic!("{}: {faults}", block.place));
    }
}

#[test]
fn filter_for_envoy_is_part_of_the_shipped_one() {
    let shipped = fs::read_to_string(root().join("deploy/envoy/envoy.yaml")).unwrap();
    let shipped: Value = serde_saphyr::from_str(&shipped).unwrap();
    let chain = &shipped["static_resources"]["listeners"][0]["filter_chains"][0];
    let filter = &chain["filters"][0]["typed_config"]["http_filters"][0];
    for block in marked("envoy") {
        let shown: Value = serde_saphyr::from_str(&block.text).unwrap();
        assert_part(&shown, filter, &block.place);
    }
}

/// Mappings and lists may leave things out.
fn assert_part(shown: &Value, shipped: &Value, path: &str) {
    match (shown, shipped) {
        (Value::Object(shown), Value::Object(_)) => {
            for (key, value) in shown {
                assert_part(value, &shipped[key], &format!("{path}.{key}"));
            }
        }
        (Value::Array(shown), Value::Array(shipped)) => {
            for item in shown {
                assert!(shipped.contains(item), "{path}: {item} is not shipped");
            }
        }
        _ => assert_eq!(shown, shipped, "{path}"),
    }
}

#[test]
fn manifests_for_kubernetes_agree_with_the_settings() {
    let defaults = config::load(&Sources::default()).unwrap().settings;
    for block in marked("kubernetes") {
        let manifest: Value = serde_saphyr::from_str(&block.text).unwrap();
        match manifest["kind"].as_str().unwrap() {
            "Deployment" => assert_deployment(&manifest["spec"]["template"]["spec"], &defaults),
            "Service" => {
                assert_eq!(manifest["spec"]["clusterIP"], "None", "{}", block.place);
                assert_ports(&manifest["spec"]["ports"], "port", &defaults);
            }
            kind => panic!("{}: {kind} is not checked", block.place),
        }
    }
}

fn assert_deployment(pod: &Value, defaults: &Settings) {
    let container = &pod["containers"][0];
    assert_ports(&container["ports"], "containerPort", defaults);
    // Secrets come from files that are not here.
    let environment = container["env"].as_array().unwrap().iter();
    let environment = environment.map(|pair| {
        let text = |key: &str| pair[key].as_str().unwrap().to_owned();
        (text("name"), text("value"))
    });
    let (files, plain): (Vec<_>, Vec<_>) =
        environment.partition(|(name, _)| name.ends_with("_FILE"));
    for (name, _) in files {
        let known = |(section, key): (_, &Key)| super::settings::variable(section, key) == name;
        assert!(Key::all().any(known), "{name} is no setting");
    }
    let plain = plain.into_iter().map(|(name, value)| (name.into(), value.into()));
    let sources = Sources { environment: plain.collect(), ..Sources::default() };
    let grpc = config::load(&sources).unwrap_or_else(|faults| panic!("{faults}")).settings.grpc;
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let drain = grpc.drain_delay + grpc.drain_timeout;
    assert!(drain.as_secs() < grace, "a drain of {drain:?} in {grace} s");
    let period = container["readinessProbe"]["periodSeconds"].as_u64().unwrap();
    assert!(period < grpc.drain_delay.as_secs(), "a probe every {period} s");
}

fn assert_ports(ports: &Value, field: &str, defaults: &Settings) {
    for port in ports.as_array().unwrap() {
        let listen = match port["name"].as_str().unwrap() {
            "grpc" => defaults.grpc.listen,
            "http" => defaults.http.listen,
            name => panic!("no listener {name}"),
        };
        assert_eq!(port[field].as_u64(), Some(listen.port().into()), "{port}");
    }
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let blocks = pages().iter().flat_map(Page::blocks).map(|block| block.text).collect::<Vec<_>>();
    let spans = pages().iter().flat_map(Page::code_spans).collect::<Vec<_>>();
    let lines = blocks.iter().chain(&spans).flat_map(|text| text.lines());
    let targets: Vec<_> = lines.filter_map(|line| line.strip_prefix("make ")).collect();
    assert!(targets.len() >= 4, "{targets:?}");
    for target in targets.iter().filter_map(|line| line.split_whitespace().next()) {
        assert!(makefile.contains(&format!("\n{target}:")), "no target {target}");
    }
}

/// Pages of the book name files of the repository in code spans: the book is built elsewhere, a link would break.
#[test]
fn files_that_pages_name_exist() {
    let folders = ["deploy", "docs", "proto", "src", "tests"];
    let mut found = 0;
    for page in pages() {
        for span in page.code_spans() {
            let path = span.split([' ', ':']).next().unwrap();
            let folder = path.split_once('/').map_or("", |(folder, _)| folder);
            if folders.contains(&folder) {
                found += 1;
                assert!(root().join(path).exists(), "{}: no {path}", page.path);
            }
        }
    }
    assert!(found > 0);
}

fn marked(mark: &str) -> Vec<Block> {
    let found: Vec<_> = pages().iter().flat_map(|page| page.marked(mark)).collect();
    assert!(!found.is_empty(), "no block is marked {mark:?}");
    found
}
