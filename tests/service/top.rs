//! `tollgate admin top`: who is being limited now, by the real binary over memory and Redis.

use serde_json::Value;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::admin_cli::admin;
use crate::support::grpc::codes;
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "
domain: d
descriptors:
  - key: user
    rate_limit: {name: per-user, unit: day, requests_per_unit: 3}
  - key: secret
    sensitive: true
    rate_limit: {unit: day, requests_per_unit: 3}
  - key: shadowed
    shadow_mode: true
    rate_limit: {unit: day, requests_per_unit: 3}
";

const SECRET: &str = "hunter2-is-the-secret";

/// The number of denials of so many requests.
async fn denied(tollgate: &Tollgate, entries: &[(&str, &str)], times: usize) -> usize {
    let mut client = tollgate.client().await;
    let codes = codes(&mut client, &request("d", &[entries]), times).await;
    codes.into_iter().filter(|code| *code == Code::OverLimit).count()
}

/// The lines of `--json`: descriptor and denials.
fn ranked(tollgate: &Tollgate, line: &str) -> Vec<(String, u64)> {
    let printed = admin(tollgate, &format!("top {line} --json"));
    let caller = |line: &str| {
        let caller: Value = serde_json::from_str(line).unwrap();
        assert_eq!(caller["max_error"], 0);
        let entry = &caller["entries"][0];
        let text = |field: &str| entry[field].as_str().unwrap();
        (format!("{}={}", text("key"), text("value")), caller["count"].as_u64().unwrap())
    };
    printed.ok().lines().map(caller).collect()
}

#[tokio::test]
async fn hammered_caller_is_first_and_its_line_fits_other_commands() {
    let tollgate = Options::serving(POLICY).start();
    assert!(admin(&tollgate, "top").ok().starts_with("no callers denied from 20"));
    assert_eq!(denied(&tollgate, &[("user", "some one")], 5).await, 2);
    assert_eq!(denied(&tollgate, &[("user", "mallory")], 43).await, 40);
    assert_eq!(denied(&tollgate, &[("user", "fair")], 3).await, 0);
    assert_eq!(denied(&tollgate, &[("shadowed", "x")], 8).await, 0);
    assert_eq!(denied(&tollgate, &[("none", "x")], 3).await, 0);

    let printed = admin(&tollgate, "top d");
    let lines: Vec<_> = printed.ok().lines().collect();
    let [head, first, second, last] = lines.as_slice() else { panic!("{printed:#?}") };
    assert_eq!(*head, "DENIALS  LIMIT                RULE  DOMAIN AND DESCRIPTOR");
    assert_eq!(*first, "     40  3/day name per-user  user  d user=mallory");
    assert_eq!(*second, "      2  3/day name per-user  user  d 'user=some one'");
    assert!(last.starts_with("2 callers denied from 20"), "{last}");
    assert!(last.ends_with("Z on this replica"), "{last}");

    let words = first.rsplit_once("  ").unwrap().1;
    let explained = admin(&tollgate, &format!("explain {words}"));
    assert!(explained.ok().starts_with("over limit\n"), "{explained:#?}");
    assert_eq!(admin(&tollgate, &format!("block {words}")).ok(), "d user=mallory: blocked\n");
    assert_eq!(denied(&tollgate, &[("user", "mallory")], 50).await, 50);
    let printed = admin(&tollgate, "top d --limit 1");
    assert!(printed.ok().contains("     50  blocked  (client)  d user=mallory\n"), "{printed:#?}");
    assert!(printed.ok().contains("\n1 of 3 callers denied"), "{printed:#?}");

    let printed = admin(&tollgate, "top --shadow");
    assert!(printed.ok().contains("      5  3/day  shadowed  d shadowed=x\n"), "{printed:#?}");
    assert!(printed.ok().contains("\n1 caller let pass by shadow mode from"), "{printed:#?}");
    assert_eq!(ranked(&tollgate, "other"), []);
    admin(&tollgate, "top d --limit 1001").failed(2);
}

#[tokio::test]
async fn replicas_rank_their_own_denials_whether_redis_or_the_deny_cache_decides() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s").start();
    let (here, there) = (start(), start());
    assert_eq!(denied(&here, &[("user", "a")], 53).await, 50);
    let remembered = here.metric("tollgate_remembered_denials_total").unwrap();
    assert!(remembered >= 1.0, "by the deny cache, too: {remembered}");
    // The counter is the same, the counts are not.
    assert_eq!(denied(&there, &[("user", "a")], 7).await, 7);
    assert_eq!(denied(&there, &[("user", "b")], 13).await, 10);
    let owned = |counts: &[(&str, u64)]| -> Vec<(String, u64)> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    assert_eq!(ranked(&here, "d"), owned(&[("user=a", 50)]));
    assert_eq!(ranked(&there, "d"), owned(&[("user=b", 10), ("user=a", 7)]));
}

#[tokio::test]
async fn sensitive_values_are_hashed() {
    let tollgate = Options::serving(POLICY).env("TOLLGATE__SENSITIVE_KEY", "pepper").start();
    assert_eq!(denied(&tollgate, &[("secret", SECRET)], 5).await, 2);
    let printed = admin(&tollgate, "top d");
    let line = printed.ok().lines().nth(1).unwrap();
    let (hash, comment) = line.split_once("secret=").unwrap().1.split_once(' ').unwrap();
    assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    assert_eq!(comment.trim(), "# hashed: a sensitive value");
    let json = admin(&tollgate, "top d --json");
    let caller: Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!((&caller["entries"][0]["hashed"], &caller["count"]), (&true.into(), &2.into()));
    assert!(!printed.out.contains(SECRET) && !json.out.contains(SECRET));
}

#[tokio::test]
async fn busiest_callers_are_ranked_and_a_rule_has_its_own_top() {
    let tollgate = Options::serving(POLICY).set("metrics.top_series=2").start();
    for (entry, times) in [(("user", "a"), 4), (("user", "b"), 6), (("shadowed", "s"), 5)] {
        denied(&tollgate, &[entry], times).await;
    }
    let busiest = [("user=b", 6), ("shadowed=s", 5), ("user=a", 4)];
    let owned = |counts: &[(&str, u64)]| -> Vec<(String, u64)> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    assert_eq!(ranked(&tollgate, "d --busiest"), owned(&busiest));
    assert_eq!(ranked(&tollgate, "d --busiest --rule shadowed"), owned(&[("shadowed=s", 5)]));
    assert_eq!(ranked(&tollgate, "d --rule user"), owned(&[("user=b", 3), ("user=a", 1)]));
    let printed = admin(&tollgate, "top --busiest");
    assert!(printed.ok().starts_with("DECISIONS  LIMIT"), "{printed:#?}");
    assert!(printed.ok().contains("\n3 callers decided from 20"), "{printed:#?}");
    // A third caller that is denied makes no third series.
    denied(&tollgate, &[("user", "c")], 9).await;
    let body = http::get(tollgate.at.http, "/metrics").body;
    let series: Vec<&str> =
        body.lines().filter(|line| line.starts_with("tollgate_top_denials{")).collect();
    let of = |value: &str, count: u64| {
        format!(
            "tollgate_top_denials{{domain=\"d\",rule=\"user\",limit=\"per-user\",descriptor=\"user={value}\"}} {count}"
        )
    };
    assert_eq!(series, [of("c", 6), of("b", 3)]);
}

/// Each limit of a rule that binds has a line of its own.
#[tokio::test]
async fn limit_that_binds_is_named() {
    let policy = "
domain: d
descriptors:
  - key: user
    rate_limits:
      - {name: small, unit: day, requests_per_unit: 4}
      - {name: large, unit: year, requests_per_unit: 6, algorithm: fixed_window}
";
    let tollgate = Options::serving(policy).start();
    assert_eq!(denied(&tollgate, &[("user", "a")], 7).await, 3);
    let printed = admin(&tollgate, "top d");
    assert!(printed.ok().contains("  3  4/day name small  user  d user=a\n"), "{printed:#?}");
}

/// Observation by what it holds: of so many values, the same few lines.
#[tokio::test]
async fn hundred_thousand_values_take_little_memory() {
    let values = |tollgate: &Tollgate| {
        let at = tollgate.at.http;
        move || http::get(at, "/metrics").body.lines().count()
    };
    let tollgate = Options::serving(POLICY).unheard().start();
    let lines = values(&tollgate);
    let mut client = tollgate.client().await;
    let mut flood = async |from: usize, to: usize| {
        for first in (from..to).step_by(100) {
            let values: Vec<String> = (first..first + 100).map(|n| format!("v{n}")).collect();
            let paths: Vec<[(&str, &str); 1]> =
                values.iter().map(|v| [("user", v.as_str())]).collect();
            let paths: Vec<&[(&str, &str)]> = paths.iter().map(<[_; 1]>::as_slice).collect();
            codes(&mut client, &request("d", &paths), 1).await;
        }
    };
    flood(0, 1_000).await;
    let before = lines();
    flood(1_000, 100_000).await;
    assert_eq!(lines(), before, "no series of their own");
    assert_eq!(tollgate.metric("tollgate_memory_counters"), Some(100_000.0));
}

#[tokio::test]
async fn rank_can_be_switched_off() {
    let tollgate = Options::serving(POLICY).set("admin.top_callers=0").start();
    assert_eq!(denied(&tollgate, &[("user", "a")], 5).await, 2);
    let refused = admin(&tollgate, "top");
    assert!(refused.failed(1).contains("the setting admin.top_callers is 0"), "{refused:?}");
}
