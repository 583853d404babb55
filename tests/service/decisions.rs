//! What a request gets: verdicts, charges and statuses, over gRPC and with counters in memory.

use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::rate_limit::Unit;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};

use crate::support::grpc::{Client, ask, codes, metadata, refund, with_hits};
use crate::support::tollgate::{Options, Tollgate, request};

const POLICIES: &str = "
domain: d
descriptors:
  - {key: one, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: two, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: five, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: blocked, rate_limit: {unit: day, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: bucket, rate_limit: {unit: day, requests_per_unit: 2, algorithm: token_bucket}}
  - {key: fixed, rate_limit: {unit: year, requests_per_unit: 2, algorithm: fixed_window}}
  - {key: refill, rate_limit: {unit: second, requests_per_unit: 10, algorithm: token_bucket}}
  - {key: slow refill, rate_limit: {unit: minute, requests_per_unit: 40, burst: 1, algorithm: token_bucket}}
  - {key: owes, rate_limit: {unit: day, requests_per_unit: 2, algorithm: token_bucket, charge: always, max_debt: 4}}
  - {key: posts, rate_limit: {unit: day, requests_per_unit: 2, charge: always}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: shadowed quota, quota_mode: true, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: basic, rate_limit: {name: basic, unit: day, requests_per_unit: 1}}
  - {key: premium, rate_limit: {name: premium, replaces: [{name: basic}], unit: day, requests_per_unit: 5}}
  - {key: exact, value: foo, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: exact, value: foo*, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: exact, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: shared, value: foo*, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - key: tighter day
    rate_limits:
      - {name: hour, unit: hour, requests_per_unit: 5}
      - {name: day, unit: day, requests_per_unit: 3}
  - key: equal
    rate_limits:
      - {name: day, unit: day, requests_per_unit: 3}
      - {name: hour, unit: hour, requests_per_unit: 3}
  - key: nested
    value: a
    descriptors:
      - {key: leaf, rate_limit: {unit: day, requests_per_unit: 1}}
";

/// The unit that only the response's enum names.
const WEEK: i32 = 7;

const OVER: Code = Code::OverLimit;
const OK: Code = Code::Ok;

async fn start() -> (Tollgate, Client) {
    let tollgate = Options::serving(POLICIES).start();
    let client = tollgate.client().await;
    (tollgate, client)
}

fn one(key: &str, value: &str) -> pb::RateLimitRequest {
    request("d", &[&[(key, value)]])
}

/// The only status of the answer.
async fn status(client: &mut Client, asked: &pb::RateLimitRequest) -> DescriptorStatus {
    let mut answer = ask(client, asked.clone()).await;
    assert_eq!(answer.statuses.len(), 1);
    assert_eq!(answer.statuses[0].code, answer.overall_code);
    answer.statuses.remove(0)
}

async fn remaining(client: &mut Client, asked: &pb::RateLimitRequest) -> u32 {
    status(client, &with_hits(asked.clone(), 0)).await.limit_remaining
}

fn statuses(answer: &pb::RateLimitResponse) -> Vec<(Code, u32)> {
    answer.statuses.iter().map(|status| (status.code(), status.limit_remaining)).collect()
}

fn reset(status: &DescriptorStatus) -> i64 {
    let reset = status.duration_until_reset.as_ref().expect("a reset");
    assert_eq!(reset.nanos, 0, "whole seconds");
    reset.seconds
}

/// What a client that is denied must wait, in milliseconds.
fn retry_after(answer: &pb::RateLimitResponse) -> f64 {
    metadata(answer)["descriptors"][0]["retry_after_ms"].as_f64().expect("retry_after_ms")
}

#[tokio::test]
async fn denied_request_charges_none_of_its_limits() {
    let (_tollgate, mut client) = start().await;
    assert_eq!(codes(&mut client, &one("one", "v"), 1).await, [OK]);
    let both = request("d", &[&[("five", "v")], &[("one", "v")], &[("five", "w")]]);
    for _ in 0..3 {
        let answer = ask(&mut client, both.clone()).await;
        assert_eq!(answer.overall_code(), OVER);
        assert_eq!(statuses(&answer), [(OK, 4), (OVER, 0), (OK, 4)], "what would be left");
    }
    assert_eq!(remaining(&mut client, &one("five", "v")).await, 5);
    assert_eq!(remaining(&mut client, &one("five", "w")).await, 5);
}

#[tokio::test]
async fn peek_takes_part_in_the_verdict_and_charges_nothing() {
    let (tollgate, mut client) = start().await;
    for key in ["two", "bucket", "fixed"] {
        let peek = with_hits(one(key, "v"), 0);
        assert_eq!(codes(&mut client, &peek, 3).await, [OK; 3], "{key}");
        assert_eq!(tollgate.metric("tollgate_memory_counters"), Some(0.0), "no state: {key}");
        codes(&mut client, &one(key, "v"), 2).await;
        let mut peek_and_take = request("d", &[&[(key, "v")], &[("five", key)]]);
        peek_and_take.descriptors[0].hits_addend = Some(0);
        let answer = ask(&mut client, peek_and_take).await;
        assert_eq!(statuses(&answer), [(OVER, 0), (OK, 4)], "{key}");
        assert_eq!(remaining(&mut client, &one("five", key)).await, 5, "{key}");
        ask(&mut client, refund(one(key, "v"), 2)).await;
    }
}

#[tokio::test]
async fn refund_gives_back_never_more_than_was_used_and_never_makes_state() {
    let (tollgate, mut client) = start().await;
    for (key, full) in [("five", 5), ("bucket", 2), ("fixed", 2)] {
        let asked = one(key, "v");
        let unknown = status(&mut client, &refund(asked.clone(), 3)).await;
        assert_eq!((unknown.code(), unknown.limit_remaining), (OK, full), "{key}");
        assert_eq!(tollgate.metric("tollgate_memory_counters"), Some(0.0), "{key}");
        ask(&mut client, with_hits(asked.clone(), 2)).await;
        assert_eq!(status(&mut client, &refund(asked.clone(), 1)).await.limit_remaining, full - 1);
        let rest = status(&mut client, &refund(asked.clone(), u64::MAX)).await;
        assert_eq!((rest.code(), rest.limit_remaining), (OK, full), "{key}");
        assert_eq!(remaining(&mut client, &asked).await, full, "{key}");
    }
    // A refund counts although the request that carries it is denied.
    ask(&mut client, with_hits(one("five", "w"), 5)).await;
    let mut mixed = request("d", &[&[("five", "w")], &[("blocked", "v")]]);
    mixed.descriptors[0].hits_addend = Some(4);
    mixed.descriptors[0].is_negative_hits = true;
    assert_eq!(ask(&mut client, mixed).await.overall_code(), OVER);
    assert_eq!(remaining(&mut client, &one("five", "w")).await, 4);
}

#[tokio::test]
async fn charge_always_counts_denied_requests_up_to_the_debt() {
    let (_tollgate, mut client) = start().await;
    // A token takes half a day; three of two leave one token of debt, so a hit waits for two.
    let half_day = 43_200_000.0;
    let near = |found: f64, expected: f64| (expected - 60_000.0..=expected).contains(&found);
    let owed = ask(&mut client, with_hits(one("owes", "v"), 3)).await;
    assert_eq!(owed.overall_code(), OVER);
    let wait = retry_after(&ask(&mut client, with_hits(one("owes", "v"), 0)).await);
    assert!(near(wait, 2.0 * half_day), "{wait}");
    // However much more is reported, the debt ends at max_debt.
    ask(&mut client, with_hits(one("owes", "v"), 1_000_000)).await;
    let wait = retry_after(&ask(&mut client, with_hits(one("owes", "v"), 0)).await);
    assert!(near(wait, 5.0 * half_day), "{wait}");
    // In a window the excess counts as long as its run: one refund does not make room.
    assert_eq!(codes(&mut client, &with_hits(one("posts", "v"), 3), 1).await, [OVER]);
    ask(&mut client, refund(one("posts", "v"), 1)).await;
    assert_eq!(codes(&mut client, &with_hits(one("posts", "v"), 0), 1).await, [OVER]);
    ask(&mut client, refund(one("posts", "v"), 1)).await;
    assert_eq!(codes(&mut client, &with_hits(one("posts", "v"), 0), 1).await, [OK]);
    // It is charged although another descriptor denies the request.
    let mixed = request("d", &[&[("posts", "w")], &[("blocked", "v")]]);
    assert_eq!(ask(&mut client, mixed).await.overall_code(), OVER);
    assert_eq!(remaining(&mut client, &one("posts", "w")).await, 1);
}

pub fn with_override(
    mut asked: pb::RateLimitRequest,
    requests_per_unit: u32,
    unit: i32,
    unit_multiplier: Option<u32>,
) -> pb::RateLimitRequest {
    let limit = RateLimitOverride { requests_per_unit, unit, unit_multiplier };
    asked.descriptors[0].limit = Some(limit);
    asked
}

#[tokio::test]
async fn override_gives_the_numbers_and_the_rule_its_algorithm() {
    let (_tollgate, mut client) = start().await;
    let week = 604_800;
    // Of two per fortnight: a bucket is full a week after one hit, a window two weeks after it.
    for (key, expected) in [("bucket", week), ("two", 2 * week), ("nothing", 2 * week)] {
        let asked = with_override(one(key, "v"), 2, WEEK, Some(2));
        let first = status(&mut client, &asked).await;
        assert_eq!(
            (first.code(), first.limit_remaining, reset(&first)),
            (OK, 1, expected),
            "{key}"
        );
        let limit = first.current_limit.unwrap();
        assert_eq!(limit.unit(), Unit::Week);
        assert_eq!((limit.requests_per_unit, limit.unit_multiplier), (2, Some(2)));
        assert_eq!(codes(&mut client, &asked, 2).await, [OK, OVER], "{key}");
    }
    // It stands in for the rule, for better or worse, and has no name.
    let wider = with_override(one("blocked", "v"), 3, 1, None);
    assert_eq!(codes(&mut client, &wider, 1).await, [OK]);
    let none = with_override(one("free", "v"), 0, 4, None);
    assert_eq!(codes(&mut client, &none, 1).await, [OVER]);
    let bucket_of_none = with_override(one("bucket", "w"), 0, 4, None);
    assert_eq!(codes(&mut client, &bucket_of_none, 1).await, [OVER]);
    let named = status(&mut client, &with_override(one("basic", "v"), 9, 4, None)).await;
    assert_eq!(named.current_limit.unwrap().name, "");
    // Never shadow or quota, whatever the rule is.
    for key in ["shadow", "quota"] {
        let asked = with_override(one(key, "v"), 0, 4, None);
        assert_eq!(codes(&mut client, &asked, 1).await, [OVER], "{key}");
    }
}

#[tokio::test]
async fn override_of_the_rules_window_counts_with_the_rule() {
    let (_tollgate, mut client) = start().await;
    assert_eq!(codes(&mut client, &one("two", "v"), 2).await, [OK; 2]);
    let wider = with_override(one("two", "v"), 3, 4, None);
    assert_eq!(codes(&mut client, &wider, 2).await, [OK, OVER], "hits used stay used");
}

#[tokio::test]
async fn of_several_limits_the_tightest_is_reported_and_of_equals_the_longest() {
    let (_tollgate, mut client) = start().await;
    let name = |status: &DescriptorStatus| status.current_limit.as_ref().unwrap().name.clone();
    for (key, left) in [("tighter day", [2, 1, 0]), ("equal", [2, 1, 0])] {
        for left in left {
            let found = status(&mut client, &one(key, "v")).await;
            assert_eq!((name(&found).as_str(), found.limit_remaining), ("day", left), "{key}");
            assert_eq!(reset(&found), 86_400, "{key}");
        }
        let answer = ask(&mut client, one(key, "v")).await;
        assert_eq!(name(&answer.statuses[0]), "day", "{key} waits longest");
        let over = &metadata(&answer)["descriptors"][0]["limits_over"];
        let expected = if key == "equal" { vec!["day", "hour"] } else { vec!["day"] };
        assert_eq!(over, &serde_json::json!(expected), "{key}");
    }
    // Of two that fail, one for ever and one for an hour, the first is reported, with its period.
    let never = status(&mut client, &with_hits(one("equal", "w"), 4)).await;
    assert_eq!((never.code(), name(&never).as_str(), reset(&never)), (OVER, "hour", 3_600));
}

#[tokio::test]
async fn exact_value_goes_before_wildcard_and_wildcard_before_any() {
    let (_tollgate, mut client) = start().await;
    for (value, left) in [("foo", 0), ("foo1", 1), ("foo2", 1), ("", 2), ("fo", 2), ("xfoo", 2)] {
        let found = status(&mut client, &one("exact", value)).await;
        assert_eq!((found.code(), found.limit_remaining), (OK, left), "{value:?}");
    }
    // Values share a counter only where the rule says so.
    assert_eq!(codes(&mut client, &one("shared", "foo1"), 1).await, [OK]);
    assert_eq!(codes(&mut client, &one("shared", "foo2"), 2).await, [OK, OVER]);
    assert_eq!(codes(&mut client, &one("shared", "bar"), 3).await, [OK; 3], "no rule");
    // A path must be gone to its end, and no further.
    for entries in
        [&[("nested", "a")][..], &[("nested", "a"), ("leaf", "x"), ("more", "y")], &[("leaf", "x")]]
    {
        let answer = ask(&mut client, request("d", &[entries])).await;
        assert_eq!(statuses(&answer), [(OK, 0)], "{entries:?}");
        assert_eq!(answer.statuses[0].current_limit, None, "{entries:?}");
    }
    let leaf = request("d", &[&[("nested", "a"), ("leaf", "x")]]);
    assert_eq!(codes(&mut client, &leaf, 2).await, [OK, OVER]);
}

#[tokio::test]
async fn limit_that_replaces_another_takes_it_out_of_the_request() {
    let (_tollgate, mut client) = start().await;
    assert_eq!(codes(&mut client, &one("basic", "v"), 2).await, [OK, OVER]);
    for descriptors in
        [[&[("basic", "v")][..], &[("premium", "v")]], [&[("premium", "v")], &[("basic", "v")]]]
    {
        let answer = ask(&mut client, request("d", &descriptors)).await;
        assert_eq!(answer.overall_code(), OK);
        let limited = answer.statuses.iter().filter(|status| status.current_limit.is_some());
        assert_eq!(limited.count(), 1, "{answer:?}");
    }
    // An override that cannot be understood is passed over: its descriptor still follows the rule, and what that replaces.
    let mut asked = request("d", &[&[("premium", "v")], &[("basic", "v")]]);
    asked = with_override(asked, 1, 99, None);
    assert_eq!(ask(&mut client, asked.clone()).await.overall_code(), OK);
    // A valid one stands in for the rule, which then replaces nothing.
    asked = with_override(asked, 9, 4, None);
    assert_eq!(ask(&mut client, asked).await.overall_code(), OVER);
    // A replaced limit is no limit, even beside an override that cannot be understood.
    let mut asked = request("d", &[&[("basic", "v")], &[("premium", "w")]]);
    asked = with_override(asked, 1, 99, None);
    assert_eq!(ask(&mut client, asked).await.overall_code(), OK);
}

#[tokio::test]
async fn shadow_rule_reports_and_denies_nothing() {
    let (tollgate, mut client) = start().await;
    let asked = one("shadow", "v");
    assert_eq!(statuses(&ask(&mut client, asked.clone()).await), [(OK, 0)]);
    let over = ask(&mut client, asked.clone()).await;
    assert_eq!(over.overall_code(), OK);
    assert_eq!(statuses(&over), [(OK, 0)]);
    let described = &metadata(&over)["descriptors"][0];
    assert_eq!(described["shadow"], true);
    assert_eq!(described.get("over_limit"), None);
    let series = "tollgate_decisions_total{domain=\"d\",rule=\"shadow\",limit=\"1/DAY\",outcome=\"shadowed\"}";
    assert_eq!(tollgate.metric(series), Some(1.0));
    let mixed = request("d", &[&[("shadow", "v")], &[("one", "v")]]);
    let pair = [ask(&mut client, mixed.clone()).await, ask(&mut client, mixed).await];
    assert_eq!(pair.map(|answer| answer.overall_code()), [OK, OVER], "the other still denies");
}

#[tokio::test]
async fn quotas_deny_only_when_all_of_them_fail() {
    let (_tollgate, mut client) = start().await;
    assert_eq!(codes(&mut client, &one("quota", "a"), 2).await, [OK, OVER], "a quota alone");
    let both = request("d", &[&[("quota", "a")], &[("quota", "b")], &[("five", "v")]]);
    let first = ask(&mut client, both.clone()).await;
    assert_eq!(first.overall_code(), OK, "one quota is left");
    assert_eq!(statuses(&first), [(OVER, 0), (OK, 0), (OK, 4)]);
    let second = ask(&mut client, both).await;
    assert_eq!(second.overall_code(), OVER);
    assert_eq!(remaining(&mut client, &one("five", "v")).await, 4, "denied: not charged");
    // A shadowed quota counts as one that is left.
    codes(&mut client, &one("shadowed quota", "v"), 1).await;
    let mixed = request("d", &[&[("quota", "a")], &[("shadowed quota", "v")]]);
    assert_eq!(ask(&mut client, mixed).await.overall_code(), OK);
    // An enforced limit denies whatever quota is left.
    let enforced = request("d", &[&[("quota", "c")], &[("blocked", "v")]]);
    assert_eq!(ask(&mut client, enforced).await.overall_code(), OVER);
}

#[tokio::test]
async fn reset_is_rounded_up_and_at_least_a_second() {
    let (_tollgate, mut client) = start().await;
    let unused = status(&mut client, &with_hits(one("refill", "v"), 0)).await;
    assert_eq!((unused.limit_remaining, reset(&unused)), (10, 1), "full already");
    let used = status(&mut client, &one("refill", "v")).await;
    assert_eq!((used.limit_remaining, reset(&used)), (9, 1), "full in a tenth of a second");
    let slow = status(&mut client, &one("slow refill", "v")).await;
    assert_eq!(reset(&slow), 2, "full in a second and a half");
    let denied = ask(&mut client, one("slow refill", "v")).await;
    assert_eq!(denied.overall_code(), OVER);
    let wait = retry_after(&denied);
    assert!(wait > 0.0 && wait <= 1_500.0, "{wait}");
    assert_eq!(reset(&denied.statuses[0]), (wait / 1_000.0).ceil() as i64);
    let never = ask(&mut client, with_hits(one("bucket", "v"), 3)).await;
    assert_eq!(reset(&never.statuses[0]), 86_400, "what can never pass reports the period");
    assert_eq!(metadata(&never)["descriptors"][0].get("retry_after_ms"), None);
}

#[tokio::test]
async fn unlimited_has_everything_left_and_no_limit_nothing_to_say() {
    let (_tollgate, mut client) = start().await;
    let answer = ask(&mut client, request("d", &[&[("free", "v")], &[("nothing", "v")]])).await;
    assert_eq!(statuses(&answer), [(OK, u32::MAX), (OK, 0)]);
    for status in &answer.statuses {
        assert_eq!((&status.current_limit, &status.duration_until_reset), (&None, &None));
    }
    let huge = with_hits(one("free", "v"), u64::MAX);
    assert_eq!(codes(&mut client, &huge, 1).await, [OK]);
}
