//! `/json`: decisions over HTTP, beyond what `edge` says of its errors.

use crate::support::http;
use crate::support::tollgate::Options;

#[test]
fn json_says_when_to_come_back_unless_it_is_never() {
    const LIMITS: &str = "domain: d
descriptors:
  - {key: day, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: hour, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 1, algorithm: token_bucket}}
  - {key: blocked, rate_limit: {unit: day, requests_per_unit: 0}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 0}}\n";
    let tollgate = Options::serving(LIMITS).start();
    let post = |keys: &[&str]| {
        let one = |key: &&str| format!(r#"{{"entries": [{{"key": "{key}", "value": "v"}}]}}"#);
        let descriptors: Vec<String> = keys.iter().map(one).collect();
        let body = format!(r#"{{"domain": "d", "descriptors": [{}]}}"#, descriptors.join(", "));
        let answer = http::post(tollgate.at.http, "/json", &body);
        let wait = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
        (answer.status, wait.map(|wait| wait.parse::<u64>().unwrap()))
    };
    assert_eq!(post(&["day"]), (200, None));
    assert_eq!(post(&["hour"]), (200, None));
    let (status, wait) = post(&["day"]);
    assert_eq!(status, 429);
    assert!(wait.is_some_and(|wait| wait > 3_600), "{wait:?}");
    let (_, both) = post(&["hour", "day", "shadow"]);
    assert!(both.is_some_and(|wait| wait > 3_600), "the longer wait: {both:?}");
    assert_eq!(post(&["blocked"]), (429, None));
    assert_eq!(post(&["day", "blocked"]), (429, None));
    let denied = (0..100).map(|_| post(&["second"])).find(|(status, _)| *status == 429);
    assert_eq!(denied, Some((429, Some(1))));
}
