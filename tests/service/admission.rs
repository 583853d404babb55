//! Replicas that share one Redis admit exactly the limit, whoever asks how many at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::domain::{Clock as _, SystemClock};
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tollgate::verify::{Promise, Trace};
use tonic::transport::Channel;

use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const ALGORITHMS: [&str; 3] = ["sliding_window", "token_bucket", "fixed_window"];
const CALLERS: usize = 64;

/// Limits of a day, so that nothing comes back while the test runs, and of a second, so that everything does.
fn policies(dir: &std::path::Path) -> PathBuf {
    let rule = |key: &str, algorithm: &str, limit: u32, unit: &str| {
        format!(
            "  - {{key: {key}, rate_limit: {{unit: {unit}, requests_per_unit: {limit}, algorithm: {algorithm}}}}}\n"
        )
    };
    let mut text = String::from("domain: d\ndescriptors:\n");
    for algorithm in ALGORITHMS {
        text += &rule(&format!("{algorithm}_500"), algorithm, 500, "day");
        text += &rule(&format!("{algorithm}_700"), algorithm, 700, "day");
        text += &rule(&format!("{algorithm}_900"), algorithm, 900, "day");
        text += &rule(&format!("{algorithm}_second"), algorithm, 50, "second");
    }
    text += "  - key: leased\n    rate_limit: {unit: second, requests_per_unit: 1000, algorithm: token_bucket, lease: {ttl: 200ms}}\n";
    let path = dir.join("policies.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Two replicas; the store may take its time, for this is about numbers and the machine may be busy.
fn replicas(redis: &RedisServer, policies: &std::path::Path) -> [Tollgate; 2] {
    let options =
        Options::default().policies(policies).redis(redis.url()).set("store.deadline=20s");
    [options.clone().start(), options.start()]
}

async fn clients(replicas: &[Tollgate; 2]) -> Vec<RateLimitServiceClient<Channel>> {
    let mut clients = Vec::new();
    for caller in 0..CALLERS {
        clients.push(replicas[caller % 2].client().await);
    }
    clients
}

async fn admits(
    client: &mut RateLimitServiceClient<Channel>,
    request: &pb::RateLimitRequest,
) -> bool {
    let answer = client.should_rate_limit(request.clone()).await.unwrap().into_inner();
    answer.overall_code() == Code::Ok
}

/// Every caller asks `times` times; how many requests were admitted.
async fn storm(
    clients: Vec<RateLimitServiceClient<Channel>>,
    request: pb::RateLimitRequest,
    times: usize,
) -> usize {
    let request = Arc::new(request);
    let callers = clients.into_iter().map(|mut client| {
        let request = Arc::clone(&request);
        tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..times {
                admitted += usize::from(admits(&mut client, &request).await);
            }
            admitted
        })
    });
    let mut admitted = 0;
    for caller in callers.collect::<Vec<_>>() {
        admitted += caller.await.unwrap();
    }
    admitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_admit_exactly_the_limit_with_one_descriptor() {
    let Some(redis) = RedisServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let replicas = replicas(&redis, &policies(dir.path()));
    for algorithm in ALGORITHMS {
        let key = format!("{algorithm}_500");
        let asked = request("d", &[&[(&key, "one")]]);
        assert_eq!(storm(clients(&replicas).await, asked, 20).await, 500, "{algorithm}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_admit_exactly_the_tightest_of_three_and_charge_no_more() {
    let Some(redis) = RedisServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let replicas = replicas(&redis, &policies(dir.path()));
    for algorithm in ALGORITHMS {
        let [tight, middle, wide] = [500, 700, 900].map(|n| format!("{algorithm}_{n}"));
        // The tightest stands last, so that a decision one by one would have charged the others first.
        let asked = request("d", &[&[(&wide, "v")], &[(&middle, "v")], &[(&tight, "v")]]);
        assert_eq!(storm(clients(&replicas).await, asked, 20).await, 500, "{algorithm}");
        for (key, left) in [(&wide, 400), (&middle, 200), (&tight, 0)] {
            let mut peek = request("d", &[&[(key, "v")]]);
            peek.descriptors[0].hits_addend = Some(0);
            let mut client = replicas[0].client().await;
            let answer = client.should_rate_limit(peek).await.unwrap().into_inner();
            assert_eq!(
                answer.statuses[0].limit_remaining, left,
                "{key}: denied requests were charged"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_runtime_over_all_threads_admits_exactly_the_limit_and_drains() {
    let Some(redis) = RedisServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().policies(policies(dir.path())).redis(redis.url());
    let shared = options.set("grpc.runtime=shared").set("grpc.cores=3");
    let shared = shared.set("grpc.drain_delay=0s").set("store.deadline=20s");
    let mut replicas = [shared.clone().start(), shared.start()];
    let names = |replica: &Tollgate| {
        let threads = std::fs::read_dir(format!("/proc/{}/task", replica.pid())).unwrap();
        let name = |thread: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap()
        };
        threads.map(name).filter(|name| name.starts_with("tollgate-worker")).count()
    };
    assert_eq!(replicas.each_ref().map(names), [3, 3]);
    let asked = request("d", &[&[("token_bucket_500", "one")]]);
    assert_eq!(storm(clients(&replicas).await, asked, 20).await, 500);
    for replica in &mut replicas {
        replica.signal("TERM");
        assert!(replica.wait().success(), "{:?}", replica.log());
        assert_eq!(replica.errors(), Vec::<String>::new());
    }
}

/// Asks every `pace` until `end`, and records each answer.
async fn asks_until(
    end: Instant,
    pace: Duration,
    mut client: RateLimitServiceClient<Channel>,
    asked: pb::RateLimitRequest,
    clock: Arc<SystemClock>,
) -> Trace {
    let mut trace = Trace::default();
    while Instant::now() < end {
        let sent = clock.now();
        let add = if admits(&mut client, &asked).await { Trace::admit } else { Trace::refuse };
        add(&mut trace, sent, clock.now(), 1);
        tokio::time::sleep(pace).await;
    }
    trace
}

/// 64 callers, as fast as a shared machine lets them, for 20 s on limits of a second: the promise
/// of each algorithm holds in every interval, by the times at which requests were sent and
/// answered. Hardly a refusal is needless: the clocks of caller and Redis differ by some
/// microseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_in_every_interval_while_windows_slide() {
    let Some(redis) = RedisServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let replicas = replicas(&redis, &policies(dir.path()));
    let clock = Arc::new(SystemClock::start());
    let end = Instant::now() + Duration::from_secs(20);
    let mut callers = Vec::new();
    for (i, client) in clients(&replicas).await.into_iter().enumerate() {
        let algorithm = ALGORITHMS[i % 3];
        let asked = request("d", &[&[(&format!("{algorithm}_second"), "v")]]);
        // Paced, so that the machine is not the limit: still 20 times what may pass.
        let pace = Duration::from_millis(5);
        let caller = asks_until(end, pace, client, asked, Arc::clone(&clock));
        callers.push((algorithm, tokio::spawn(caller)));
    }
    let mut traces = std::collections::BTreeMap::<&str, Trace>::new();
    for (algorithm, caller) in callers {
        traces.entry(algorithm).or_default().merge(&caller.await.unwrap());
    }
    for (algorithm, trace) in &traces {
        let promise: Promise = format!("{algorithm} 50/s").parse().unwrap();
        promise.check(trace).unwrap();
        let (few, many) = (50 * 14, 50 * 22);
        assert!(
            (few..=many).contains(&trace.admitted()),
            "{algorithm}: {} in 20 s",
            trace.admitted()
        );
        let finding = promise.finding(trace);
        assert!(finding.needless.unwrap() * 100 <= finding.refused, "{algorithm}: {finding:?}");
    }
}

/// A hot counter with leases: 64 callers that ask a little more often than the bucket refills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_two_replicas_keep_the_promise_of_the_bucket() {
    let Some(redis) = RedisServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let replicas = replicas(&redis, &policies(dir.path()));
    let clock = Arc::new(SystemClock::start());
    let end = Instant::now() + Duration::from_secs(4);
    let callers = clients(&replicas).await.into_iter().map(|client| {
        let asked = request("d", &[&[("leased", "v")]]);
        let caller = asks_until(end, Duration::from_millis(45), client, asked, Arc::clone(&clock));
        tokio::spawn(caller)
    });
    let mut trace = Trace::default();
    for caller in callers.collect::<Vec<_>>() {
        trace.merge(&caller.await.unwrap());
    }
    let promise: Promise = "token_bucket 1000/s burst 1000".parse().unwrap();
    promise.check(&trace).unwrap();
    let sum = |name| replicas.iter().map(|replica| replica.metric(name).unwrap()).sum::<f64>();
    let (leased, stranded) =
        (sum("tollgate_leased_hits_total"), sum("tollgate_stranded_hits_total"));
    assert!(leased * 3.0 > trace.admitted() as f64, "{leased} of {} leased", trace.admitted());
    assert!(stranded < leased, "{stranded} stranded, {leased} leased");
}

/// What a denied request must not touch: every stored byte and every expiry.
async fn raw_state(redis: &RedisServer) -> Vec<(Vec<u8>, Vec<u8>, i64)> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    // Replicas count each other there, about every second.
    keys.retain(|key| !key.ends_with(b"{registry}:replicas"));
    keys.sort();
    let mut state = Vec::new();
    for key in keys {
        let value = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        let expires =
            redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut connection).await.unwrap();
        state.push((key, value, expires));
    }
    state
}

#[tokio::test]
async fn denied_request_leaves_the_raw_stored_state_unchanged() {
    let Some(redis) = RedisServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let [replica, _] = replicas(&redis, &policies(dir.path()));
    let mut client = replica.client().await;
    let keys: Vec<String> = ALGORITHMS.iter().map(|algorithm| format!("{algorithm}_500")).collect();
    let mut asked = request("d", &[&[(&keys[0], "v")], &[(&keys[1], "v")], &[(&keys[2], "v")]]);
    asked.hits_addend = 3;
    assert!(admits(&mut client, &asked).await);
    let before = raw_state(&redis).await;
    assert_eq!(before.len(), 3);
    for (denying, algorithm) in ALGORITHMS.iter().enumerate() {
        let mut denied = asked.clone();
        denied.descriptors[denying].hits_addend = Some(498);
        assert!(!admits(&mut client, &denied).await);
        assert_eq!(raw_state(&redis).await, before, "denied by {algorithm}");
    }
    assert!(admits(&mut client, &asked).await);
    assert_ne!(raw_state(&redis).await, before);
}
