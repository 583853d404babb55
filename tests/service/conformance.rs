//! The cases observed on the Go reference service, against both stores and with every algorithm.

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use serde::Deserialize;
use serde_json::Value;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::rate_limit::Unit;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};

use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, entry};

/// (case, algorithm) pairs that cannot agree by definition, with the reason. None so far: a case that
/// depends on how an algorithm slides would stand here.
const CANNOT_AGREE: [(&str, &str, &str); 0] = [];

const ALGORITHMS: [&str; 4] = ["sliding_window", "token_bucket", "fixed_window", RATELIMIT];

/// Fixed windows, in the personality of the reference.
const RATELIMIT: &str = "ratelimit";

#[derive(Deserialize)]
struct Case {
    name: String,
    config_files: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    refuse: bool,
    #[serde(default)]
    steps: Vec<Step>,
    min_window_left_s: Option<u64>,
    #[serde(default)]
    align_second: bool,
}

#[derive(Deserialize)]
struct Step {
    request: Option<Request>,
    expect: Option<Value>,
    repeat: Option<usize>,
    sleep_s: Option<f64>,
    write_files: Option<std::collections::BTreeMap<String, String>>,
    remove_files: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Request {
    domain: String,
    descriptors: Vec<Descriptor>,
    #[serde(default)]
    hits_addend: u32,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(default)]
    entries: Vec<Entry>,
    hits_addend: Option<u64>,
    #[serde(default)]
    is_negative_hits: bool,
    limit: Option<Limit>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Limit {
    requests_per_unit: u32,
    unit: String,
    unit_multiplier: Option<u32>,
}

fn cases() -> Vec<Case> {
    let text = fs::read_to_string("tests/conformance/cases.json").unwrap();
    serde_json::from_str::<Vec<Case>>(&text).unwrap().into_iter().filter(|c| !c.refuse).collect()
}

#[test]
fn memory_answers_as_the_reference() {
    every_case(None);
}

#[test]
fn redis_answers_as_the_reference() {
    let Some(redis) = RedisServer::start() else { return };
    every_case(Some(&redis));
}

fn every_case(redis: Option<&RedisServer>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = cases();
    assert!(cases.len() >= 65);
    let mut failures = Vec::new();
    for (algorithm, case) in ALGORITHMS.iter().flat_map(|a| cases.iter().map(move |case| (a, case)))
    {
        if CANNOT_AGREE.iter().any(|(name, with, _)| *name == case.name && with == algorithm) {
            continue;
        }
        let prefix = format!("{algorithm}:{}:", case.name);
        if let Err(difference) = runtime.block_on(play(case, algorithm, redis, &prefix)) {
            failures.push(format!("{} with {algorithm}: {difference}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn play(
    case: &Case,
    algorithm: &str,
    redis: Option<&RedisServer>,
    prefix: &str,
) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &String, text: &String| fs::write(dir.path().join(name), text).unwrap();
    case.config_files.iter().for_each(|(name, text)| write(name, text));
    let mut options = Options::default()
        .policies(dir.path())
        .set(format!("redis.key_prefix={prefix}"))
        // The reference tells every caller the same time.
        .set("limits.retry_spread=off");
    options = options.set(match algorithm {
        RATELIMIT => "compat=ratelimit".to_owned(),
        _ => format!("policies.default_algorithm={algorithm}"),
    });
    if let Some(redis) = redis {
        // These cases are about answers, not about how quickly a busy machine gives them.
        options = options.redis(redis.url()).set("store.deadline=5s");
    }
    let tollgate = options.start();
    let mut client = tollgate.client().await;
    wait_for_window(case);
    for (i, step) in case.steps.iter().enumerate() {
        change_files(step, dir.path(), &tollgate);
        let Some(request) = &step.request else { continue };
        for turn in 0..step.repeat.unwrap_or(1) {
            let answer = client.should_rate_limit(to_pb(request)).await;
            let expect = step.expect.as_ref().unwrap();
            compare(answer.map(tonic::Response::into_inner), expect)
                .map_err(|difference| format!("step {i} turn {turn}: {difference}"))?;
        }
    }
    Ok(())
}

/// Some cases were recorded away from the edge of a window.
fn wait_for_window(case: &Case) {
    let now = || {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        (since.as_secs(), since.subsec_millis())
    };
    let left_of_minute = case.min_window_left_s.unwrap_or(0);
    while 60 - now().0 % 60 < left_of_minute || (case.align_second && now().1 > 300) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn change_files(step: &Step, dir: &Path, tollgate: &crate::support::tollgate::Tollgate) {
    for (name, text) in step.write_files.iter().flatten() {
        fs::write(dir.join(name), text).unwrap();
    }
    for name in step.remove_files.iter().flatten() {
        fs::remove_file(dir.join(name)).unwrap();
    }
    if step.write_files.is_some() || step.remove_files.is_some() {
        let _ = tollgate;
        thread::sleep(Duration::from_secs(1));
    }
    // The case is about what time does to the answer.
    thread::sleep(Duration::from_secs_f64(step.sleep_s.unwrap_or(0.0)));
}

fn to_pb(request: &Request) -> pb::RateLimitRequest {
    let descriptor = |descriptor: &Descriptor| pb::RateLimitDescriptor {
        entries: descriptor
            .entries
            .iter()
            .map(|e| entry(e.key.as_bytes(), e.value.as_bytes()))
            .collect(),
        limit: descriptor.limit.as_ref().map(|limit| {
            pb::rate_limit_descriptor::RateLimitOverride {
                requests_per_unit: limit.requests_per_unit,
                unit: Unit::from_str_name(&limit.unit).map_or(99, Into::into),
                unit_multiplier: limit.unit_multiplier,
            }
        }),
        hits_addend: descriptor.hits_addend,
        is_negative_hits: descriptor.is_negative_hits,
    };
    pb::RateLimitRequest {
        domain: request.domain.clone().into(),
        descriptors: request.descriptors.iter().map(descriptor).collect(),
        hits_addend: request.hits_addend,
    }
}

fn compare(
    answer: Result<pb::RateLimitResponse, tonic::Status>,
    expect: &Value,
) -> Result<(), String> {
    if expect.get("grpc_error").is_some() {
        // Deliberately different: a bad request is INVALID_ARGUMENT here, UNKNOWN there.
        return match answer {
            Err(status) if status.code() == tonic::Code::InvalidArgument => Ok(()),
            other => Err(format!("expected INVALID_ARGUMENT, got {other:?}")),
        };
    }
    let answer = answer.map_err(|status| format!("gRPC error {status}"))?;
    same("overall_code", expect, answer.overall_code().as_str_name())?;
    let statuses = expect["statuses"].as_array().unwrap();
    if statuses.len() != answer.statuses.len() {
        return Err(format!("{} statuses, expected {}", answer.statuses.len(), statuses.len()));
    }
    for (i, (status, expect)) in answer.statuses.iter().zip(statuses).enumerate() {
        compare_status(status, expect).map_err(|difference| format!("status {i}: {difference}"))?;
    }
    Ok(())
}

fn compare_status(status: &DescriptorStatus, expect: &Value) -> Result<(), String> {
    let code = Code::try_from(status.code).unwrap();
    same("code", expect, code.as_str_name())?;
    if let Some(remaining) = expect.get("limit_remaining")
        && remaining.as_u64() != Some(status.limit_remaining.into())
    {
        return Err(format!("remaining {}, expected {remaining}", status.limit_remaining));
    }
    let Some(limit) = &status.current_limit else {
        let bare = status.duration_until_reset.is_none();
        let expected = expect.get("requests_per_unit").is_none();
        return if bare && expected { Ok(()) } else { Err(format!("no limit in {status:?}")) };
    };
    if expect.get("no_limit").is_some() {
        return Err(format!("unexpected limit in {status:?}"));
    }
    if expect["requests_per_unit"].as_u64() != Some(limit.requests_per_unit.into()) {
        return Err(format!("limit {limit:?}, expected {expect}"));
    }
    same("unit", expect, limit.unit().as_str_name())?;
    same("name", expect, &limit.name)?;
    let period = tollgate::domain::Unit::from_name(limit.unit().as_str_name()).unwrap().seconds();
    let reset = status.duration_until_reset.as_ref().map_or(0, |duration| duration.seconds);
    if reset < 1 || reset.unsigned_abs() > period {
        return Err(format!("reset after {reset} s, expected 1 to {period}"));
    }
    Ok(())
}

fn same(field: &str, expect: &Value, got: &str) -> Result<(), String> {
    match expect.get(field).and_then(Value::as_str) {
        Some(expected) if expected != got => Err(format!("{field} {got}, expected {expected}")),
        _ => Ok(()),
    }
}
