//! Domains whose limits are not enforced: in the log, in the metrics, and on the list of modes.

use tollgate::edge::admin::pb::Mode;
use tollgate::edge::admin::pb::list_modes_response::Source;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::codes;
use crate::support::operator::Operator;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str =
    "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 2}}\n";

/// The series of the metric, such as `domain="d",mode="off"`, once there are so many.
fn series(tollgate: &Tollgate, count: usize) -> Vec<String> {
    let read = || -> Vec<String> {
        let text = crate::support::http::get(tollgate.at.http, "/metrics").body;
        let mut all: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("tollgate_mode{")?.strip_suffix("} 1"))
            .map(str::to_owned)
            .collect();
        all.sort();
        all
    };
    tollgate.wait_for(&format!("{count} modes"), || read().len() == count);
    read()
}

#[tokio::test]
async fn modes_of_the_settings_are_seen_from_the_start() {
    let settings = "mode: shadow\nmodes: {d: enforce, e: \"off\"}\n";
    let tollgate = Options::serving(POLICY).config(settings).start();
    let line = tollgate.wait_for_log("limits are not enforced");
    assert!(line.contains("WARN") && line.contains("all domains: shadow, e: off"), "{line}");
    let expected = [r#"domain="",mode="shadow""#, r#"domain="e",mode="off""#];
    assert_eq!(series(&tollgate, 2), expected);
    let listed = Operator::of(&tollgate).await.list_modes().await;
    let settings = Source::Settings;
    let row = |domain: &str, mode| (domain.to_owned(), mode, settings);
    let expected = [row("", Mode::Shadow), row("d", Mode::Enforce), row("e", Mode::Off)];
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn mode_that_an_operator_sets_is_seen_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Options::serving(POLICY).data(dir.path().join("data")).start();
    let mut tollgate = start();
    let operator = Operator::of(&tollgate).await;
    assert_eq!(series(&tollgate, 1), [r#"domain="",mode="enforce""#]);
    operator.set_mode("d", Mode::Shadow).await;
    let line = tollgate.wait_for_log("limits are not enforced");
    assert!(line.contains("d: shadow"), "{line}");
    let expected = [r#"domain="",mode="enforce""#, r#"domain="d",mode="shadow""#];
    assert_eq!(series(&tollgate, 2), expected);
    let all = (String::new(), Mode::Enforce, Source::Settings);
    let own = ("d".to_owned(), Mode::Shadow, Source::Operator);
    assert_eq!(operator.list_modes().await, [all.clone(), own]);

    tollgate.signal("KILL");
    tollgate.wait();
    let tollgate = start();
    let line = tollgate.wait_for_log("limits are not enforced");
    assert!(line.contains("d: shadow"), "set before the start: {line}");
    let operator = Operator::of(&tollgate).await;
    operator.set_mode("d", Mode::Unspecified).await;
    tollgate.wait_for_log("limits are enforced again in every domain");
    assert_eq!(series(&tollgate, 1), [r#"domain="",mode="enforce""#]);
    assert_eq!(operator.list_modes().await, [all]);
}

/// The first descriptor meets the limit of a rule, the second one brings a limit along.
#[tokio::test]
async fn all_descriptors_are_quotas_where_the_settings_say_so() {
    for (mode, expected) in [("true", [Code::Ok, Code::OverLimit]), ("false", [Code::OverLimit; 2])]
    {
        let quota = format!("policies.quota_mode={mode}");
        let tollgate = Options::serving(POLICY).set(quota).start();
        let mut client = tollgate.client().await;
        let spend = |hits| {
            let mut asked = request("d", &[&[("k", "v")], &[("other", "v")]]);
            asked.descriptors[0].hits_addend = Some(hits);
            let limit = RateLimitOverride { requests_per_unit: 1, unit: 4, unit_multiplier: None };
            asked.descriptors[1].limit = Some(limit);
            asked
        };
        // The first is over at once; the second is full after one request.
        assert_eq!(codes(&mut client, &spend(3), 2).await, expected, "{mode}");
    }
}
