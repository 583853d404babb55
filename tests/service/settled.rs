//! Costs that are known afterwards: `charge: settled` as a proxy uses it, on both stores. A call peeks, and reports its
//! cost when it has ended, whatever became of it.

use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, codes, refund, with_hits};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, descriptor, request};

const OK: Code = Code::Ok;
const OVER: Code = Code::OverLimit;

const ALGORITHMS: [&str; 3] = ["fixed_window", "sliding_window", "token_bucket"];

/// The number of `envoy.type.v3.RateLimitUnit.YEAR`: no test is at its end.
const YEAR: i32 = 6;

/// A domain with a limit of each of these numbers that settles, under the key `limit`; one of 100 that every request
/// meets, under `other`; and one that is always over.
fn policies(algorithm: &str) -> String {
    let limit = |requests: &u32| {
        format!(
            "  - {{key: limit, value: \"{requests}\", rate_limit: {{unit: year, requests_per_unit: {requests}}}}}\n"
        )
    };
    let limits: String = [0, 2, 3, 4, 6, 10, 12, 21, 1_000_000].iter().map(limit).collect();
    format!(
        "domain: {algorithm}
descriptors:
{limits}
  - {{key: other, rate_limit: {{unit: year, requests_per_unit: 100}}}}
  - {{key: admitted, rate_limit: {{unit: year, requests_per_unit: 100, charge: admitted}}}}
  - {{key: closed, rate_limit: {{unit: year, requests_per_unit: 0, charge: admitted}}}}
  - {{key: shadow, shadow_mode: true, rate_limit: {{unit: year, requests_per_unit: 3}}}}
  - {{key: quota, quota_mode: true, rate_limit: {{unit: year, requests_per_unit: 3}}}}
  - {{key: free, quota_mode: true, rate_limit: {{unit: year, requests_per_unit: 1000}}}}
"
    )
}

/// A tollgate on one of the stores.
struct Served {
    tollgate: Tollgate,
    algorithm: &'static str,
    _redis: Option<RedisServer>,
}

impl Served {
    /// One for each algorithm and store.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for algorithm in ALGORITHMS {
            let options = || {
                let default = format!("policies.default_algorithm={algorithm}");
                Options::serving(&policies(algorithm))
                    .set(default)
                    .set("policies.default_charge=settled")
                    .set("store.deadline=5s")
            };
            all.push(Self { tollgate: options().start(), algorithm, _redis: None });
            let Some(redis) = RedisServer::start() else { continue };
            let tollgate = options().redis(redis.url()).start();
            all.push(Self { tollgate, algorithm, _redis: Some(redis) });
        }
        all
    }

    /// A request of one hit for each of these descriptors.
    fn one(&self, descriptors: &[(&str, &str)]) -> pb::RateLimitRequest {
        let entries: Vec<_> = descriptors.iter().map(std::slice::from_ref).collect();
        request(self.algorithm, &entries)
    }
}

/// The calls that pass until one does not. Each peeks and then reports `cost`.
async fn calls(client: &mut Client, asked: &pb::RateLimitRequest, cost: u64) -> u64 {
    let mut passed = 0;
    while ask(client, with_hits(asked.clone(), 0)).await.overall_code() == OK {
        ask(client, with_hits(asked.clone(), cost)).await;
        passed += 1;
        assert!(passed < 100, "no limit at all");
    }
    assert_eq!(codes(client, &with_hits(asked.clone(), 0), 3).await, [OVER; 3]);
    passed
}

#[tokio::test]
async fn as_many_calls_pass_as_control_planes_expect() {
    for served in Served::all() {
        let mut client = served.tollgate.client().await;
        for (limit, cost, expected) in [
            ("21", 10, 3),
            ("4", 2, 3),
            ("0", 2, 1),
            ("6", 3, 3),
            ("3", 1, 4),
            ("12", 4, 4),
            ("10", 10_000, 1),
        ] {
            let passed = calls(&mut client, &served.one(&[("limit", limit)]), cost).await;
            assert_eq!(passed, expected, "{limit} by {cost}, {}", served.algorithm);
        }
    }
}

#[tokio::test]
async fn limits_that_requests_bring_along_count_the_peek_and_its_charge_together() {
    for served in Served::all() {
        let mut client = served.tollgate.client().await;
        for (limit, expected) in [(6, 4), (2, 2), (0, 1)] {
            for key in ["other", "without a rule"] {
                let tenant = format!("tenant {limit}");
                let mut asked = served.one(&[(key, &tenant)]);
                let over = RateLimitOverride {
                    requests_per_unit: limit,
                    unit: YEAR,
                    unit_multiplier: None,
                };
                asked.descriptors[0].limit = Some(over);
                let passed = calls(&mut client, &asked, 2).await;
                assert_eq!(passed, expected, "{limit}, {key}, {}", served.algorithm);
            }
        }
    }
}

/// 8.4 a, c, d and e: each of them leaves no limit, or another count of calls.
#[tokio::test]
async fn charge_that_does_not_fit_is_booked_in_full() {
    for served in Served::all() {
        let mut client = served.tollgate.client().await;
        let asked = served.one(&[("limit", "10")]);
        let mut answers = Vec::new();
        for hits in [9, 0, 10, 0, 1] {
            let answer = ask(&mut client, with_hits(asked.clone(), hits)).await;
            answers.push((answer.overall_code(), answer.statuses[0].limit_remaining));
        }
        assert_eq!(answers, [(OK, 1), (OK, 1), (OVER, 0), (OVER, 0), (OVER, 0)]);
        // 20 are used: 9, 10 and 1. Refunds end the debt where it stands.
        let back = ask(&mut client, refund(asked.clone(), 10)).await;
        assert_eq!((back.overall_code(), back.statuses[0].limit_remaining), (OK, 0));
        assert_eq!(codes(&mut client, &with_hits(asked.clone(), 0), 1).await, [OK], "exactly full");
        assert_eq!(codes(&mut client, &asked, 1).await, [OVER], "one hit does not fit");
        ask(&mut client, refund(asked.clone(), 1_000)).await;
        let empty = ask(&mut client, with_hits(asked, 0)).await;
        assert_eq!((empty.overall_code(), empty.statuses[0].limit_remaining), (OK, 10));
    }
}

/// 8.4 b: budgets of one report do not leak where another is over.
#[tokio::test]
async fn descriptors_of_a_report_are_booked_one_by_one() {
    for served in Served::all() {
        let mut client = served.tollgate.client().await;
        let left = async |client: &mut Client, key: &str| {
            let peek = with_hits(served.one(&[(key, "b")]), 0);
            ask(client, peek).await.statuses[0].limit_remaining
        };
        let report =
            served.one(&[("limit", "3"), ("other", "b"), ("admitted", "b"), ("closed", "b")]);
        let answer = ask(&mut client, with_hits(report, 7)).await;
        let found: Vec<Code> =
            answer.statuses.iter().map(pb::rate_limit_response::DescriptorStatus::code).collect();
        assert_eq!((answer.overall_code(), &found[..]), (OVER, &[OVER, OK, OK, OVER][..]));
        assert_eq!(left(&mut client, "other").await, 93, "{}", served.algorithm);
        assert_eq!(left(&mut client, "admitted").await, 100, "charged by the verdict");
        // Hits of the whole request are no report.
        let mut whole = served.one(&[("other", "b"), ("closed", "b")]);
        whole.hits_addend = 5;
        assert_eq!(ask(&mut client, whole).await.overall_code(), OVER);
        assert_eq!(left(&mut client, "other").await, 93, "{}", served.algorithm);
    }
}

/// 8.4 f: a store that is asked for every report. Denials are remembered in front of Redis.
#[tokio::test]
async fn remembered_denials_answer_no_report() {
    for served in Served::all() {
        let mut client = served.tollgate.client().await;
        let asked = served.one(&[("limit", "1000000")]);
        ask(&mut client, with_hits(asked.clone(), 999_999)).await;
        let mut plain = asked.clone();
        plain.hits_addend = 2;
        assert_eq!(codes(&mut client, &plain, 20).await, [OVER; 20]);
        assert_eq!(codes(&mut client, &with_hits(asked.clone(), 2), 5).await, [OVER; 5]);
        // 1 000 009 are used.
        assert_eq!(codes(&mut client, &refund(asked.clone(), 8), 1).await, [OK]);
        assert_eq!(codes(&mut client, &with_hits(asked.clone(), 0), 1).await, [OVER]);
        assert_eq!(codes(&mut client, &refund(asked.clone(), 1), 1).await, [OK]);
        assert_eq!(codes(&mut client, &with_hits(asked, 0), 1).await, [OK]);
    }
}

/// 8.4 g: also a failing quota descriptor, and one in shadow mode, is charged.
#[tokio::test]
async fn modes_of_a_descriptor_do_not_decide_about_its_report() {
    for served in Served::all() {
        let mut client = served.tollgate.client().await;
        for key in ["quota", "shadow"] {
            let report = with_hits(served.one(&[(key, "g"), ("free", "g")]), 5);
            assert_eq!(
                codes(&mut client, &report, 1).await,
                [OK],
                "one quota is left, or a shadow"
            );
            let peek = with_hits(served.one(&[(key, "g")]), 0);
            ask(&mut client, refund(served.one(&[(key, "g")]), 2)).await;
            let full = ask(&mut client, peek.clone()).await;
            assert_eq!((full.statuses[0].code(), full.statuses[0].limit_remaining), (OK, 0));
            ask(&mut client, with_hits(served.one(&[(key, "g")]), 1)).await;
            let over = ask(&mut client, peek).await;
            // What a descriptor in shadow mode would say is in the metadata.
            let said = if key == "quota" { OVER } else { OK };
            assert_eq!((over.statuses[0].code(), over.overall_code()), (said, said), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_at_the_same_time_are_all_booked() {
    for served in Served::all() {
        let mut callers = Vec::new();
        for caller in 0..16 {
            let mut client = served.tollgate.client().await;
            let asked = served.one(&[("limit", "1000000"), ("limit", "0")]);
            callers.push(tokio::spawn(async move {
                for i in 0..25 {
                    ask(&mut client, with_hits(asked.clone(), 1 + (caller + i) % 7)).await;
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        let sum: u64 = (0..16).flat_map(|caller| (0..25).map(move |i| 1 + (caller + i) % 7)).sum();
        let mut client = served.tollgate.client().await;
        let peek = with_hits(served.one(&[("limit", "1000000")]), 0);
        let left = ask(&mut client, peek).await.statuses[0].limit_remaining;
        assert_eq!(u64::from(left), 1_000_000 - sum, "{}", served.algorithm);
    }
}

/// 8.4 h: what is lost is counted.
#[tokio::test]
async fn reports_that_no_counter_has_are_counted() {
    const LOST: &str = "tollgate_unbooked_hits_total";
    let Some(mut redis) = RedisServer::start() else { return };
    let options = |mode: &str| {
        Options::serving(&policies("fixed_window"))
            .set("policies.default_algorithm=fixed_window")
            .set("policies.default_charge=settled")
            .set("store.deadline=1s")
            .set(format!("store.on_failure={mode}"))
            .redis(redis.url())
            .start()
    };
    let tollgates = ["allow", "deny", "local"].map(options);
    for tollgate in &tollgates {
        let mut client = tollgate.client().await;
        let report = with_hits(request("fixed_window", &[&[("limit", "21")]]), 2);
        assert_eq!(codes(&mut client, &report, 1).await, [OK]);
        assert_eq!(tollgate.metric(LOST), Some(0.0));
    }
    redis.stop();
    let report = |entry| pb::RateLimitRequest {
        domain: "fixed_window".into(),
        descriptors: vec![
            pb::RateLimitDescriptor { hits_addend: Some(40), ..descriptor(&[("limit", "21")]) },
            pb::RateLimitDescriptor { hits_addend: Some(0), ..descriptor(&[("other", entry)]) },
            descriptor(&[("other", entry)]),
        ],
        hits_addend: 0,
    };
    for (tollgate, lost, expected) in [
        (&tollgates[0], 80.0, [OK, OK]),
        (&tollgates[1], 80.0, [OVER, OVER]),
        // Its share books it, and the second one finds it over.
        (&tollgates[2], 0.0, [OVER, OVER]),
    ] {
        let mut client = tollgate.client().await;
        assert_eq!(codes(&mut client, &report("x"), 2).await, expected);
        assert_eq!(tollgate.metric(LOST), Some(lost));
    }
    // The share tells Redis of both, also beyond the limit.
    redis.restart();
    let [_, _, local] = &tollgates;
    local.wait_for_metric("tollgate_told_hits_total", 80.0);
    let mut client = local.client().await;
    local.wait_for("all is told", || local.metric("tollgate_untold_keys") == Some(0.0));
    local.wait_for("Redis in use", || local.metric("tollgate_store_up") == Some(1.0));
    let asked = request("fixed_window", &[&[("limit", "21")]]);
    ask(&mut client, refund(asked.clone(), 80 - 22)).await;
    assert_eq!(codes(&mut client, &with_hits(asked.clone(), 0), 1).await, [OVER], "22 are used");
    ask(&mut client, refund(asked.clone(), 1)).await;
    assert_eq!(codes(&mut client, &with_hits(asked, 0), 1).await, [OK], "21 are used");
}
