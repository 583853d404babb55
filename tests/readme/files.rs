//! What the README shows of files: policies compile, settings load, Envoy's filter is the shipped one, links lead
//! somewhere.

use std::fs;

use serde_json::Value;
use tollgate::config::{self, Sources};
use tollgate::policy::{Options, Source, compile};

use crate::markdown::{Block, anchors, blocks, code_spans, links, root};

#[test]
fn every_yaml_block_says_what_it_is() {
    for block in blocks().iter().filter(|block| block.language == "yaml") {
        let mark = block.mark.as_deref().unwrap_or_default();
        let known = matches!(mark, "policy" | "settings" | "envoy") || mark.starts_with("file ");
        assert!(known, "README.md:{}: {mark:?}", block.line);
    }
}

#[test]
fn policies_compile_without_faults_and_warnings() {
    for block in marked("policy") {
        let source = Source::new(format!("README.md:{}", block.line), block.text);
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
        config::load(&sources)
            .unwrap_or_else(|faults| panic!("README.md:{}: {faults}", block.line));
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
        assert_part(&shown, filter, &format!("README.md:{}", block.line));
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
fn links_lead_somewhere() {
    let anchors = anchors();
    let mut relative = 0;
    for link in links().iter().filter(|link| !link.starts_with("https://")) {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.iter().any(|known| known == anchor), "no {link}"),
            None => assert!(root().join(link).exists(), "no {link}"),
        }
        relative += 1;
    }
    assert!(relative > 0);
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let spans = code_spans();
    let commands: Vec<_> = blocks().into_iter().map(|block| block.text).chain(spans).collect();
    let named = commands.iter().flat_map(|text| text.lines());
    let targets: Vec<_> = named.filter_map(|line| line.strip_prefix("make ")).collect();
    assert!(targets.len() >= 4, "{targets:?}");
    for target in targets.iter().filter_map(|line| line.split_whitespace().next()) {
        assert!(makefile.contains(&format!("\n{target}:")), "no target {target}");
    }
}

fn marked(mark: &str) -> Vec<Block> {
    let found: Vec<_> =
        blocks().into_iter().filter(|block| block.mark.as_deref() == Some(mark)).collect();
    assert!(!found.is_empty(), "no block is marked {mark:?}");
    found
}
