//! The control plane at work: nothing that operators change keeps the process from answering, and every replica says
//! what it puts in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tollgate::edge::admin::pb::policy_service_client::PolicyServiceClient;
use tollgate::edge::admin::pb::{ApplyPolicyRequest, Mode};
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::codes;
use crate::support::http;
use crate::support::operator::{Operator, daily};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

/// Many rules of one domain, which take long to compile.
fn many_rules(count: usize) -> String {
    let rule = |i| format!("  - {{key: k{i}, rate_limit: {{unit: day, requests_per_unit: {i}}}}}");
    let rules: Vec<String> = (0..count).map(rule).collect();
    format!("domain: many\ndescriptors:\n{}\n", rules.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn large_policy_is_applied_while_the_process_answers() {
    let tollgate = Options::default().start();
    let mut policies = PolicyServiceClient::new(Tollgate::channel(tollgate.at.admin).await)
        .max_decoding_message_size(64 << 20);
    let yaml = many_rules(30_000);
    let (done, at) = (Arc::new(AtomicBool::new(false)), tollgate.at.http);
    let polling = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(http::get(at, "/livez").status, 200);
                slowest = slowest.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            slowest
        })
    };
    let begun = Instant::now();
    let request = ApplyPolicyRequest { yaml, ..Default::default() };
    let applied = policies.apply_policy(request).await.unwrap().into_inner();
    let took = begun.elapsed();
    done.store(true, Ordering::Relaxed);
    let slowest = polling.join().unwrap();
    assert_eq!(applied.domain, "many");
    println!("applied in {took:?}, the slowest answer took {slowest:?}");
    // On the thread that answers, the compiler would hold it for more than half of that time.
    assert!(slowest < (took / 4).max(Duration::from_millis(100)), "{slowest:?} of {took:?}");
}

#[tokio::test]
async fn damaged_registry_is_reported_once_and_decisions_go_on() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("registry.redb");
    let tollgate = Options::default().data(data.path()).start();
    let operator = Operator::of(&tollgate).await;
    operator.put((0..500).map(|i| daily(&format!("c{i}"), 5)).collect()).await.unwrap();
    drop(tollgate);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4_096..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let tollgate = Options::default().data(data.path()).start();
    tollgate.wait_for_log("is damaged");
    let mut client = tollgate.client().await;
    let asked = request("example", &[&[("remote_address", "10.0.0.7")]]);
    // Longer than the first waits for another attempt.
    for _ in 0..8 {
        assert_eq!(codes(&mut client, &asked, 1).await, [Code::Ok]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let log = tollgate.log();
    let damaged: Vec<_> = log.iter().filter(|line| line.contains("is damaged")).collect();
    assert_eq!(damaged.len(), 1, "{log:?}");
    assert!(damaged[0].contains("registry.redb") && damaged[0].contains("restore it"), "{log:?}");
    assert!(log.iter().all(|line| line.starts_with('{')), "{log:?}");
}

#[tokio::test]
async fn every_replica_logs_the_revisions_that_it_puts_in_force() {
    let Some(redis) = RedisServer::start() else { return };
    let [here, there] = [(); 2].map(|()| Options::default().redis(redis.url()).start());
    let operator = Operator::of(&here).await;
    let both_say = |part: &str| {
        for replica in [&here, &there] {
            let in_force = "a revision of the registry is in force";
            let told = |line: &String| line.contains(in_force) && line.contains(part);
            replica.wait_for(part, || replica.log().iter().any(told));
        }
    };
    operator.put((0..3).map(|i| daily(&format!("c{i}"), 5)).collect()).await.unwrap();
    both_say(r#""clients":3"#);
    operator.apply("domain: orders\ndescriptors: []\n").await;
    both_say("orders=applied");
    operator.set_mode("orders", Mode::Shadow).await;
    both_say("orders=shadow");
    operator.delete_policy("orders").await;
    both_say("orders=deleted");
    both_say(r#""revision":4"#);
}
