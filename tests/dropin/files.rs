//! Directories of policies as installations mount them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{ask, codes};
use crate::support::http;
use crate::support::tollgate::{Options, Tollgate, request};

/// A limit of one a day on the key `k` of the domain `d`.
const POLICY: &str =
    "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 1}}\n";

fn started(root: &Path) -> Tollgate {
    let environment =
        Options::default().called_ratelimit().env("RUNTIME_SUBDIRECTORY", "ratelimit");
    environment.env("RUNTIME_ROOT", root.to_str().unwrap()).env("LOG_LEVEL", "info").start()
}

fn directory() -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("ratelimit/config");
    fs::create_dir_all(&config).unwrap();
    (root, config)
}

async fn limit_holds(tollgate: &Tollgate) {
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("k", "v")]]);
    assert_eq!(codes(&mut client, &asked, 2).await, [Code::Ok, Code::OverLimit]);
}

#[tokio::test]
async fn every_file_is_read_whatever_its_name() {
    for name in ["config", "a.txt", "deep/b.conf"] {
        let (root, config) = directory();
        let path = config.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, POLICY).unwrap();
        fs::write(config.join(".hidden"), "not: a policy").unwrap();
        limit_holds(&started(root.path())).await;
    }
}

#[tokio::test]
async fn mounted_config_map_and_a_single_file_are_read() {
    let (root, config) = directory();
    fs::create_dir(config.join("..2026")).unwrap();
    fs::write(config.join("..2026/config.yaml"), POLICY).unwrap();
    symlink("..2026", config.join("..data")).unwrap();
    symlink("..data/config.yaml", config.join("config.yaml")).unwrap();
    limit_holds(&started(root.path())).await;

    let alone = tempfile::tempdir().unwrap();
    fs::create_dir(alone.path().join("ratelimit")).unwrap();
    fs::write(alone.path().join("ratelimit/config"), POLICY).unwrap();
    limit_holds(&started(alone.path())).await;
}

#[tokio::test]
async fn directory_that_appears_later_is_read_then() {
    let root = tempfile::tempdir().unwrap();
    let tollgate = started(root.path());
    tollgate.wait_for_log("does not exist yet, so no limits");
    assert_eq!(http::get(tollgate.at.http, "/healthcheck").status, 200);
    let asked = request("d", &[&[("k", "v")]]);
    assert_eq!(codes(&mut tollgate.client().await, &asked, 2).await, [Code::Ok, Code::Ok]);
    let config = root.path().join("ratelimit/config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config"), POLICY).unwrap();
    tollgate.wait_for_metric("tollgate_rules", 1.0);
    limit_holds(&tollgate).await;
}

/// A process that ends would be started again with the same file, and the reason lost among starts.
#[tokio::test]
async fn faults_at_the_start_fail_calls_until_they_are_mended() {
    let (root, config) = directory();
    fs::write(config.join("config.yaml"), "domain: d\ndescriptors: [{kee: k}]\n").unwrap();
    let tollgate = started(root.path());
    tollgate.wait_for_log("no policies, so that calls fail until they are mended");
    let health = http::get(tollgate.at.http, "/healthcheck");
    assert_eq!(health.status, 503);
    assert!(health.body.contains("no policies yet"), "{}", health.body);
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("k", "v")]]);
    let refused = client.should_rate_limit(asked.clone()).await.expect_err("no decision");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert_eq!(refused.message(), "no rate limit configuration loaded");
    fs::write(config.join("config.yaml"), POLICY).unwrap();
    tollgate.wait_for_log("healthy again");
    assert_eq!(http::get(tollgate.at.http, "/healthcheck").status, 200);
    limit_holds(&tollgate).await;
}

#[tokio::test]
async fn what_the_reference_accepts_is_a_warning() {
    let (root, config) = directory();
    let name = "a,b \"c\" ünlimited";
    let text = format!(
        "domain: d\nunit: day\ndescriptors:\n  - key: k\n    domain: elsewhere\n    rate_limit:\n      \
         unit: day\n      requests_per_unit: 1\n      key: x\n      name: '{name}'\n---\ndomain: other\n"
    );
    fs::write(config.join("config.yaml"), text).unwrap();
    let tollgate = started(root.path());
    for part in [
        "domain\\\" in a descriptor",
        "key\\\" in a limit",
        "does not fit a header",
        "a second document",
    ] {
        tollgate.wait_for_log(part);
    }
    let answer = ask(&mut tollgate.client().await, request("d", &[&[("k", "v")]])).await;
    let limit = answer.statuses[0].current_limit.as_ref().unwrap();
    assert_eq!(limit.name, "a_b _c_ _nlimited");
    let strict = Options::serving("domain: d\nunit: day\n");
    let refused = std::panic::catch_unwind(|| strict.start());
    assert!(refused.is_err(), "a fault without the personality");
}
