//! The recipe of budgets through Envoy, where no backend is there to answer.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::edge::Edge;
use crate::page;
use crate::support::envoy;
use crate::support::grpc::with_hits;
use crate::support::http;
use crate::support::operator::Operator;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;

const TITLE: &str = "Budget LLM tokens through Envoy";
/// The numbers of the recipe.
const TOKENS: u64 = 100_000;
const SLOTS: u64 = 5;
/// More than the budget has room for, if one of them keeps its estimate.
const REQUESTS: u64 = 3;

/// The tokens that are used or held, and the slots that are taken.
async fn taken(tollgate: &Tollgate) -> (u64, u64) {
    let peek = with_hits(request("llm", &[&[("api_key", "demo")]]), 0);
    let told = Operator::of(tollgate).await.explain(peek).await;
    let [tokens, slots] = [0, 1].map(|limit| told.descriptors[0].counters[limit].remaining());
    // At a limit that holds, one hit is the least that can be asked for.
    (TOKENS - 1 - tokens, SLOTS - slots)
}

fn remove_backends(envoy: &mut Value) {
    let clusters = envoy["static_resources"]["clusters"].as_array_mut().unwrap();
    let backends = clusters.iter_mut().find(|cluster| cluster["name"] == "backends").unwrap();
    backends["load_assignment"]["endpoints"] = json!([]);
}

fn ask(edge: &Edge, estimate: Option<&str>) -> String {
    let mut head = "GET /api/v1/chat HTTP/1.1\r\nhost: edge\r\nx-api-key: demo\r\n".to_owned();
    if let Some(tokens) = estimate {
        write!(head, "x-max-tokens: {tokens}\r\n").unwrap();
    }
    http::exchange(edge.envoy.edge, format!("{head}connection: close\r\n\r\n").as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_is_never_sent_upstream_costs_nothing() {
    let recipe = page::recipes().into_iter().find(|recipe| recipe.title == TITLE).unwrap();
    let Some(program) = envoy::installed() else { return };
    let tollgate = Options::serving(recipe.file("policies.yaml").unwrap()).start();
    let edge = Edge::start_with(&program, &recipe, tollgate.at.grpc, remove_backends).await;
    for estimate in [None, Some("60000")] {
        for number in 1..=REQUESTS {
            let answer = ask(&edge, estimate);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{number} of {estimate:?}: {answer}");
            assert!(answer.ends_with("no healthy upstream"), "{answer}");
            until("it costs nothing", async || (taken(&tollgate).await == (0, 0)).then_some(()))
                .await;
        }
    }
    let reserved = tollgate.metric("tollgate_holds_total{state=\"reserved\"}").unwrap() as u64;
    assert_eq!(reserved, 2 * 2 * REQUESTS, "each has held a slot and tokens");
    edge.assert_nothing_was_bypassed().await;
    assert_eq!(tollgate.errors(), [""; 0]);
}
