//! Runs the grpcurl lines in the comments of proto/tollgate/v1 as they are written; only the port is replaced.
//!
//! Each line gets a tollgate of its own with what the first line of its file made, so that there is something to read,
//! change and delete.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::examples::Shell;
use crate::markdown::root;
use crate::support::tollgate::Options;
use crate::support::tools::has_grpcurl;

/// What each line is about, a part of the answer, and where in it.
const ANSWERS: [(&str, &str, &str); 24] = [
    ("ManageClients", "/clients/0/limits/0/requestsPerUnit", "100"),
    ("ManageClients upsert", "/clients/0/expiresAt", r#""2100-01-01T00:00:00Z""#),
    ("ManageClients get", "/clients/0/entries/0/value", r#""acme""#),
    ("ManageClients delete", "/clients/0/etag", r#""1""#),
    ("ManageClients list", "/total", r#""1""#),
    ("ManageClients reset_usage", "/clients/0/limits/0/unit", r#""MINUTE""#),
    ("ManageClients set_plan", "/changed", "1"),
    ("UpsertPlan", "/plan/limits/1/requestsPerUnit", "1000000"),
    ("GetPlan", "/etag", r#""1""#),
    ("ListPlans", "/plans/0/name", r#""gold""#),
    ("DeletePlan", "/revision", r#""2""#),
    ("ApplyPolicy", "/domain", r#""orders""#),
    ("GetPolicy", "/etag", r#""1""#),
    ("ListPolicies", "/policies/0/domain", r#""orders""#),
    ("ListPolicyVersions", "/versions/0/version", r#""1""#),
    ("RollbackPolicy", "/version", r#""2""#),
    ("DeletePolicy", "", "{}"),
    ("SetMode", "/mode", r#""SHADOW""#),
    ("SetScale", "/percentInForce", "50"),
    ("ListScales", "", "{}"),
    ("ListModes", "/modes/0/mode", r#""ENFORCE""#),
    ("Explain", "/descriptors/0/rule", r#""api_key""#),
    ("GetTop", "/total", r#""0""#),
    ("SetLogLevel", "/level", r#""info,tollgate::store=debug""#),
];

/// A line of a comment, and what stands below it.
#[derive(Debug)]
struct Example {
    /// `METHOD`, or `METHOD action` where the line is that of an action's message.
    about: String,
    line: String,
}

/// The files with services, each with its examples in order.
fn files() -> Vec<(String, Vec<Example>)> {
    ["clients.proto", "plans.proto", "policies.proto"]
        .map(|name| {
            let text = fs::read_to_string(root().join("proto/tollgate/v1").join(name)).unwrap();
            let found = examples(&text);
            (text, found)
        })
        .into()
}

fn examples(text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut line = String::new();
    for source in text.lines().map(str::trim) {
        let comment = source.strip_prefix("//   ");
        if comment.is_some_and(|text| text.starts_with("grpcurl ")) || !line.is_empty() {
            line.push_str(comment.unwrap_or_default());
            line.push('\n');
        }
        if comment.is_none() && !line.trim().is_empty() {
            found.push(Example { about: about(source), line: std::mem::take(&mut line) });
        }
    }
    found
}

/// What is declared: `rpc NAME(..` or `message NAME {`, which is an action's.
fn about(declared: &str) -> String {
    let name = |rest: &str| rest.split([' ', '(']).next().unwrap().to_owned();
    if let Some(rest) = declared.strip_prefix("rpc ") {
        return name(rest);
    }
    let message = declared.strip_prefix("message ").expect(declared);
    let snake = |c: char| [c.is_uppercase().then_some('_'), Some(c.to_ascii_lowercase())];
    let snake: String = name(message).chars().flat_map(snake).flatten().collect();
    format!("ManageClients {}", snake.trim_start_matches('_'))
}

/// The methods and actions that the files declare.
/// Methods without a line: a stream has no end that a line could wait for. tests/service/events.rs calls it.
const STREAMS: [&str; 1] = ["WatchEvents"];

fn declared() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (text, _) in files() {
        let rpc =
            |line: &str| Some(line.trim().strip_prefix("rpc ")?.split_once('(')?.0.to_owned());
        let calls = text.lines().filter_map(rpc);
        names.extend(calls.filter(|name| !STREAMS.contains(&name.as_str())));
        let actions = text.split_once("oneof action {").map_or("", |(_, rest)| rest);
        let actions = actions.split_once('}').map_or("", |(actions, _)| actions);
        let name = |line: &str| Some(format!("ManageClients {}", line.trim().split(' ').nth(1)?));
        names.extend(actions.lines().filter_map(name));
    }
    names
}

#[test]
fn every_method_and_action_has_a_line() {
    let described: Vec<_> = files().into_iter().flat_map(|(_, examples)| examples).collect();
    let described: BTreeSet<_> = described.into_iter().map(|example| example.about).collect();
    assert_eq!(described, declared());
    assert_eq!(described, ANSWERS.map(|(about, ..)| about.to_owned()).into());
}

#[test]
fn lines_in_the_comments_of_the_protos_work() {
    if !has_grpcurl("proto/tollgate/v1") {
        return;
    }
    let files = files();
    let plan = files.iter().flat_map(|(_, examples)| examples).find(|e| e.about == "UpsertPlan");
    for (_, examples) in &files {
        for (i, example) in examples.iter().enumerate() {
            let policies = root().join("deploy/policies/edge.yaml");
            let tollgate = Options::default().policies(policies).start();
            let shell = Shell::at(&tollgate, None);
            if i > 0 {
                shell.run(&examples[0].about, &examples[0].line);
            }
            if let Some(plan) = plan.filter(|_| example.about == "ManageClients set_plan") {
                shell.run(&plan.about, &plan.line);
            }
            let printed = shell.run(&example.about, &example.line);
            let answer: Value = serde_json::from_str(&printed).expect(&printed);
            let told = ANSWERS.into_iter().find(|(about, ..)| *about == example.about);
            let (about, at, expected) = told.expect(&example.about);
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(answer.pointer(at), Some(&expected), "{about}: {at} in {answer:#}");
        }
    }
}
