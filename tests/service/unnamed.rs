//! Holds without a handle over the real binary, as a control plane uses them that peeks before a
//! call and reports its cost after; on both stores, under every algorithm.

use tokio::task::JoinSet;
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, ask, metadata};
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;

const ALGORITHMS: [&str; 3] = ["fixed_window", "sliding_window", "token_bucket"];

const LIMIT: u64 = 1_000;
const ESTIMATE: u64 = 100;

fn policy() -> String {
    let node = |algorithm: &&str| {
        format!(
            "  - key: {algorithm}
    rate_limit: {{algorithm: {algorithm}, unit: year, requests_per_unit: {LIMIT}, charge: settled,
                 hold: {{unnamed: true, ttl: 1h, estimate: {{default: {ESTIMATE}}}}}}}
  - key: plain-{algorithm}
    rate_limit: {{algorithm: {algorithm}, unit: year, requests_per_unit: {LIMIT}, charge: settled}}
"
        )
    };
    format!("domain: llm\ndescriptors:\n{}", ALGORITHMS.iter().map(node).collect::<String>())
}

/// Both stores, that in Redis with two replicas.
fn each_store() -> Vec<(Option<RedisServer>, Vec<Tollgate>)> {
    let mut stores = vec![(None, vec![Options::serving(&policy()).start()])];
    if let Some(redis) = RedisServer::start() {
        let start = || Options::serving(&policy()).redis(redis.url()).start();
        let replicas = vec![start(), start()];
        stores.push((Some(redis), replicas));
    }
    stores
}

fn asked(key: &str, hits: Option<u64>) -> RateLimitRequest {
    let mut asked = request("llm", &[&[(key, "ann")]]);
    asked.descriptors[0].hits_addend = hits;
    asked
}

async fn code(client: &mut Client, key: &str, hits: Option<u64>) -> Code {
    let answer = ask(client, asked(key, hits)).await;
    assert!(metadata(&answer)["hold"].is_null(), "it has no handle");
    answer.overall_code()
}

/// The hits that are used: what does not fit any more.
async fn used(operator: &Operator, key: &str) -> u64 {
    // An admission of one.
    let told = operator.explain(asked(key, None)).await;
    let [counter] = told.descriptors[0].counters.as_slice() else { panic!("one limit") };
    LIMIT - counter.remaining() - u64::from(counter.passes())
}

async fn until_used(operator: &Operator, key: &str, hits: u64) {
    let is = async || (used(operator, key).await == hits).then_some(());
    until(&format!("{hits} are used of {key}"), is).await;
}

#[tokio::test]
async fn peek_holds_the_estimate_until_the_cost_is_reported() {
    for (_redis, replicas) in each_store() {
        let operator = Operator::of(&replicas[0]).await;
        let mut clients = Vec::new();
        for i in 0..2 {
            clients.push(replicas[i % replicas.len()].client().await);
        }
        for key in ALGORITHMS {
            let told = operator.explain(asked(key, Some(0))).await;
            let [counter] = told.descriptors[0].counters.as_slice() else { panic!("one limit") };
            assert_eq!(counter.estimate, Some(ESTIMATE));
            for i in 0..10 {
                assert_eq!(code(&mut clients[i % 2], key, Some(0)).await, Code::Ok, "{key} {i}");
            }
            assert_eq!(code(&mut clients[0], key, Some(0)).await, Code::OverLimit, "{key}");
            code(&mut clients[1], key, Some(30)).await;
            until_used(&operator, key, 930).await;
            assert_eq!(code(&mut clients[0], key, Some(0)).await, Code::OverLimit, "{key}");
            code(&mut clients[0], key, Some(20)).await;
            until_used(&operator, key, 850).await;
            assert_eq!(code(&mut clients[1], key, Some(0)).await, Code::Ok, "{key}");
            code(&mut clients[0], key, Some(150)).await;
            until_used(&operator, key, 1_000).await;
            for i in 0..8 {
                code(&mut clients[i % 2], key, Some(1)).await;
            }
            until_used(&operator, key, 208).await;
            code(&mut clients[0], key, Some(5)).await;
            until_used(&operator, key, 213).await;
            // Without a number it is an admission, as under any limit that settles.
            assert_eq!(code(&mut clients[0], key, None).await, Code::Ok);
            until_used(&operator, key, 214).await;
        }
    }
}

/// Without it control planes overdraw a limit: peeks at the same time all see the same use.
#[tokio::test]
async fn calls_at_the_same_time_do_not_overdraw_the_limit() {
    for (_redis, replicas) in each_store() {
        let operator = Operator::of(&replicas[0]).await;
        for algorithm in ALGORITHMS {
            for (key, admitted) in [(format!("plain-{algorithm}"), 64), (algorithm.to_owned(), 10)]
            {
                let mut peeks = JoinSet::new();
                for i in 0..64 {
                    let (mut client, key) =
                        (replicas[i % replicas.len()].client().await, key.clone());
                    peeks.spawn(async move {
                        let passes = code(&mut client, &key, Some(0)).await == Code::Ok;
                        passes.then_some(client)
                    });
                }
                let running: Vec<Client> = peeks.join_all().await.into_iter().flatten().collect();
                assert_eq!(running.len(), admitted, "{key}");
                for mut client in running {
                    code(&mut client, &key, Some(ESTIMATE)).await;
                }
                if key == algorithm {
                    until_used(&operator, &key, LIMIT).await;
                }
            }
        }
    }
}
