//! Redis is absent, dies, freezes, forgets its scripts or refuses the password: every request is answered in time all the
//! same, by the failure mode, and limits hold again once Redis is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};

use crate::support::grpc::{
    Client, SHOULD_RATE_LIMIT, ask, codes, frame, is_degraded, metadata, raw_call, with_hits,
};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

/// What an answer may take beyond the deadline of the store: the machine may be busy.
const SLACK: Duration = Duration::from_millis(200);

/// The default of `store.deadline`.
const DEADLINE: Duration = Duration::from_millis(10);

const PATIENCE: Duration = Duration::from_secs(20);

const POLICIES: &str = "
domain: d
descriptors:
  - {key: few, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: many, rate_limit: {unit: day, requests_per_unit: 4000000000}}
  - {key: refuses, rate_limit: {unit: day, requests_per_unit: 3, on_store_failure: deny}}
  - {key: admits, rate_limit: {unit: day, requests_per_unit: 3, on_store_failure: allow}}
  - {key: leaves, rate_limit: {unit: day, requests_per_unit: 3, on_store_failure: error}}
  - {key: watches, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 3, on_store_failure: error}}
  - {key: blocked, rate_limit: {unit: day, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
";

const THREE_PASS: [Code; 4] = [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit];

fn one(key: &str, value: &str) -> pb::RateLimitRequest {
    request("d", &[&[(key, value)]])
}

/// Asks, and holds the answer to the time it may take.
async fn in_time(client: &mut Client, asked: pb::RateLimitRequest) -> pb::RateLimitResponse {
    let start = Instant::now();
    let answer = ask(client, asked).await;
    let took = start.elapsed();
    assert!(took < DEADLINE + SLACK, "an answer took {took:?}");
    answer
}

/// Asks until Redis decides; how long that took.
async fn until_redis_decides(client: &mut Client) -> Duration {
    let start = Instant::now();
    while is_degraded(&in_time(client, one("many", "probe")).await) {
        assert!(start.elapsed() < PATIENCE, "Redis is back and not used");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

/// Redis holds the limit of three for a new value. A call that misses the deadline, as one may on a busy machine, is decided
/// without Redis and may have been charged all the same.
async fn limit_holds(client: &mut Client, key: &str, value: &str) {
    let (mut admitted, mut degraded) = (0, 0);
    loop {
        let answer = ask(client, one(key, value)).await;
        match (is_degraded(&answer), answer.overall_code()) {
            (true, _) => degraded += 1,
            (false, Code::OverLimit) => break,
            (false, _) => admitted += 1,
        }
        assert!(admitted <= 3 && degraded < 20, "{admitted} by Redis, {degraded} without");
    }
    assert!(admitted + degraded >= 3, "only {admitted} admitted");
}

/// `failure_mode_deny` of Envoy then decides.
#[tokio::test]
async fn caller_decides_while_redis_is_away_if_the_limit_says_so() {
    let Some(mut redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).start();
    let mut client = tollgate.client().await;
    until_redis_decides(&mut client).await;
    redis.stop();
    let both = request("d", &[&[("admits", "v")], &[("leaves", "v")]]);
    for asked in [one("leaves", "v"), with_hits(one("leaves", "v"), 0), both] {
        let refused = client.should_rate_limit(asked).await.expect_err("no answer");
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert_eq!(refused.message(), "the store of counters does not answer");
    }
    assert_eq!(in_time(&mut client, one("watches", "v")).await.overall_code(), Code::Ok);
    assert_eq!(in_time(&mut client, one("blocked", "v")).await.overall_code(), Code::OverLimit);
    assert_eq!(in_time(&mut client, one("free", "v")).await.overall_code(), Code::Ok);
    let json =
        r#"{"domain": "d", "descriptors": [{"entries": [{"key": "leaves", "value": "v"}]}]}"#;
    let answer = http::post(tollgate.at.http, "/json", json);
    assert_eq!((answer.status, answer.body.trim()), (503, "the store of counters does not answer"));
    assert_eq!(tollgate.metric(r#"tollgate_requests_total{code="unavailable"}"#), Some(4.0));
    redis.restart();
    until_redis_decides(&mut client).await;
    limit_holds(&mut client, "leaves", "w").await;
}

#[tokio::test]
async fn starts_without_redis_answers_at_once_and_uses_it_when_it_comes() {
    let Some(mut redis) = RedisServer::start() else { return };
    redis.stop();
    let options = Options::serving(POLICIES).redis(redis.url());
    let tollgate = options.set("store.on_failure=allow").start();
    let mut client = tollgate.client().await;
    for _ in 0..5 {
        let answer = in_time(&mut client, one("few", "before")).await;
        assert_eq!(answer.overall_code(), Code::Ok, "allow is the setting");
        assert!(is_degraded(&answer));
        let refused = in_time(&mut client, one("refuses", "before")).await;
        assert_eq!(refused.overall_code(), Code::OverLimit, "the rule goes before the setting");
    }
    assert_eq!(tollgate.metric("tollgate_store_up"), Some(0.0));
    assert_eq!(tollgate.metric("tollgate_store_errors_total{kind=\"unavailable\"}"), Some(10.0));
    assert_eq!(tollgate.metric("tollgate_degraded_claims_total{answer=\"allow\"}"), Some(5.0));
    assert_eq!(tollgate.metric("tollgate_degraded_claims_total{answer=\"deny\"}"), Some(5.0));

    redis.restart();
    until_redis_decides(&mut client).await;
    limit_holds(&mut client, "few", "after").await;
    limit_holds(&mut client, "refuses", "after").await;
    tollgate.wait_for_metric("tollgate_store_up", 1.0);
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

#[tokio::test]
async fn deny_by_setting_spares_what_needs_no_redis() {
    let Some(mut redis) = RedisServer::start() else { return };
    redis.stop();
    let tollgate =
        Options::serving(POLICIES).redis(redis.url()).set("store.on_failure=deny").start();
    let mut client = tollgate.client().await;
    let table = [
        ("d", "few", Code::OverLimit, true),
        ("d", "refuses", Code::OverLimit, true),
        ("d", "admits", Code::Ok, true),
        ("d", "blocked", Code::OverLimit, false),
        ("d", "free", Code::Ok, false),
        ("d", "unknown", Code::Ok, false),
        ("unknown", "few", Code::Ok, false),
    ];
    for (domain, key, code, degraded) in table {
        let answer = in_time(&mut client, request(domain, &[&[(key, "v")]])).await;
        assert_eq!(answer.overall_code(), code, "{domain} {key}");
        assert_eq!(is_degraded(&answer), degraded, "{domain} {key}");
    }
    let refused = in_time(&mut client, one("few", "v")).await;
    assert_eq!(metadata(&refused)["descriptors"][0]["retry_after_ms"], 1_000.0);
    let too_large = in_time(&mut client, with_hits(one("admits", "v"), 4)).await;
    assert_eq!((too_large.overall_code(), is_degraded(&too_large)), (Code::OverLimit, false));
    // One of two descriptors that need no Redis: the other's failure mode decides.
    let both = request("d", &[&[("free", "v")], &[("admits", "v")]]);
    assert_eq!(in_time(&mut client, both).await.overall_code(), Code::Ok);
    let both = request("d", &[&[("blocked", "v")], &[("admits", "v")]]);
    let answer = in_time(&mut client, both).await;
    let codes: Vec<Code> = answer.statuses.iter().map(DescriptorStatus::code).collect();
    assert_eq!(codes, [Code::OverLimit, Code::Ok]);
}

/// Callers that ask all the time, and what they saw.
struct Traffic {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    callers: Vec<tokio::task::JoinHandle<Duration>>,
}

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    degraded: AtomicU64,
}

impl Traffic {
    async fn start(tollgate: &Tollgate, callers: usize) -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Seen>::default());
        let mut running = Vec::new();
        for caller in 0..callers {
            let mut client = tollgate.client().await;
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            running.push(tokio::spawn(async move {
                let asked = one("many", &format!("caller {caller}"));
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let answer = ask(&mut client, asked.clone()).await;
                    longest = longest.max(start.elapsed());
                    assert_eq!(answer.overall_code(), Code::Ok);
                    let counter =
                        if is_degraded(&answer) { &seen.degraded } else { &seen.answered };
                    counter.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                longest
            }));
        }
        Self { stop, seen, callers: running }
    }

    /// Waits until so many more requests were decided by Redis.
    async fn decided(&self, more: u64) {
        more_of(&self.seen.answered, more).await;
    }

    /// Waits until so many more requests were decided without it.
    async fn degraded(&self, more: u64) {
        more_of(&self.seen.degraded, more).await;
    }

    /// Ends it; the longest that any answer took.
    async fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for caller in self.callers {
            longest = longest.max(caller.await.expect("every request answered"));
        }
        longest
    }
}

async fn more_of(counter: &AtomicU64, more: u64) {
    let (from, start) = (counter.load(Ordering::Relaxed), Instant::now());
    while counter.load(Ordering::Relaxed) < from + more {
        assert!(start.elapsed() < PATIENCE, "the traffic does not change");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_returns_under_traffic_and_every_request_is_answered_in_time() {
    let Some(mut redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).start();
    let mut client = tollgate.client().await;
    until_redis_decides(&mut client).await;
    let traffic = Traffic::start(&tollgate, 8).await;
    for round in 0..2 {
        traffic.decided(100).await;
        redis.stop();
        traffic.degraded(100).await;
        redis.restart();
        traffic.decided(100).await;
        until_redis_decides(&mut client).await;
        limit_holds(&mut client, "few", &format!("round {round}")).await;
    }
    let longest = traffic.finish().await;
    assert!(longest < DEADLINE + SLACK, "an answer took {longest:?}");
    assert_eq!(tollgate.metric("tollgate_requests_total{code=\"invalid_argument\"}"), Some(0.0));
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_redis_costs_the_deadline_then_nothing_and_is_used_again_when_it_wakes() {
    let Some(redis) = RedisServer::start() else { return };
    // Long enough to tell an answer at the deadline from one at once, on a busy machine too.
    let deadline = Duration::from_millis(150);
    let tollgate = Options::serving(POLICIES).redis(redis.url()).set("store.deadline=150ms");
    let tollgate = tollgate.start();
    let mut client = tollgate.client().await;
    assert!(!is_degraded(&ask(&mut client, one("many", "v")).await));
    redis.pause();
    let frozen = Instant::now();
    let mut waited = 0;
    // The default of redis.response_timeout is 500 ms: until then tollgate cannot know.
    while frozen.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        assert!(is_degraded(&ask(&mut client, one("many", "v")).await));
        let took = start.elapsed();
        assert!(took < deadline + SLACK, "an answer took {took:?}");
        waited += usize::from(took + Duration::from_millis(10) >= deadline);
    }
    assert!(waited > 0, "nothing waited for the deadline: was Redis frozen?");
    let unavailable = "tollgate_store_errors_total{kind=\"unavailable\"}";
    while tollgate.metric(unavailable).is_none() {
        assert!(frozen.elapsed() < Duration::from_secs(3), "a frozen connection is kept");
        ask(&mut client, one("many", "v")).await;
    }
    assert!(tollgate.metric("tollgate_store_errors_total{kind=\"timeout\"}") > Some(0.0));
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        assert!(is_degraded(&ask(&mut client, one("many", "v")).await));
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[10] < deadline / 3, "answers without a connection take {:?}", times[10]);

    redis.resume();
    let took = until_redis_decides(&mut client).await;
    assert!(took < Duration::from_secs(2) + SLACK, "Redis was used again after {took:?}");
    limit_holds(&mut client, "few", "after").await;
}

#[tokio::test]
async fn callers_own_deadline_is_kept_with_an_answer() {
    let Some(redis) = RedisServer::start() else { return };
    let options = Options::serving(POLICIES).redis(redis.url());
    let options = options.set("store.deadline=5s").set("redis.response_timeout=30s");
    let tollgate = options.start();
    let mut client = tollgate.client().await;
    assert!(!is_degraded(&ask(&mut client, one("many", "v")).await));
    redis.pause();
    let body = frame(false, &one("many", "v").encode_to_vec());
    for timeout in ["5m", "5000u", "20m", "5m", "5m"] {
        let headers = [("grpc-timeout", timeout)];
        let start = Instant::now();
        let answer = raw_call(tollgate.at.grpc, SHOULD_RATE_LIMIT, &headers, body.clone()).await;
        let took = start.elapsed();
        assert!(is_degraded(&answer.response()), "{timeout}");
        assert!(took < Duration::from_millis(20) + SLACK, "{timeout}: {took:?}");
    }
    redis.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_script_loses_no_request() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).set("store.deadline=5s").start();
    let mut client = tollgate.client().await;
    assert!(!is_degraded(&ask(&mut client, one("many", "v")).await));
    let mut connection = redis.connection();
    let traffic = Traffic::start(&tollgate, 4).await;
    for round in 0..10 {
        traffic.decided(20).await;
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
        let value = format!("flush {round}");
        assert_eq!(codes(&mut client, &one("few", &value), 4).await, THREE_PASS);
    }
    let degraded = traffic.seen.degraded.load(Ordering::Relaxed);
    traffic.finish().await;
    assert_eq!(degraded, 0, "requests were decided without Redis");
}

#[tokio::test]
async fn redis_that_refuses_to_write_is_an_outage_and_the_connection_stays() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).set("store.deadline=5s").start();
    let mut client = tollgate.client().await;
    assert!(!is_degraded(&ask(&mut client, one("many", "v")).await));
    redis.fill();
    let refused = ask(&mut client, one("many", "v")).await;
    assert!(is_degraded(&refused) && refused.overall_code() == Code::Ok);
    assert_eq!(tollgate.metric("tollgate_store_errors_total{kind=\"rejected\"}"), Some(1.0));
    assert_eq!(tollgate.metric("tollgate_store_up"), Some(1.0));
    redis.make_room();
    assert_eq!(codes(&mut client, &one("few", "after"), 4).await, THREE_PASS);
}

#[tokio::test]
async fn wrong_password_is_told_once_with_what_to_do_and_never_shown() {
    let Some(redis) = RedisServer::start_with(&["--requirepass", "right-password"]) else { return };
    let url = format!("redis://:wrong-password@127.0.0.1:{}", redis.port());
    let tollgate = Options::serving(POLICIES).redis(url).set("log.level=debug").start();
    let mut client = tollgate.client().await;
    let start = Instant::now();
    // Several attempts to connect fall into this time.
    while start.elapsed() < Duration::from_millis(700) {
        assert!(is_degraded(&in_time(&mut client, one("few", "v")).await));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = tollgate.log();
    let told: Vec<_> = log.iter().filter(|line| line.contains("Redis does not decide")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("its address, user and password"), "{told:?}");
    assert!(!log.join("\n").contains("wrong-password"));
}
