//! Every recipe of docs/recipes.md, as it is written: its policy, its requests, its answers, with the real tollgate and,
//! where the recipe has them, the real Envoy and the real Redis.
//!
//! `page` lists the marks that say what a block is. The prose between the blocks is not checked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy.toml exempts test functions, not their helpers"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "nothing is public in a test"
)]
#![allow(clippy::disallowed_types, reason = "a poisoned lock is a failed test")]

mod edge;
mod page;
mod shell;
mod unsent;

#[path = "../support/mod.rs"]
mod support;

use std::fs;

use crate::edge::Edge;
use crate::page::Recipe;
use crate::shell::Shell;
use crate::support::envoy;
use crate::support::redis::RedisServer;
use crate::support::tollgate::Options;

/// A test for each title, and the list of all titles.
macro_rules! recipes {
    ($($name:ident: $title:literal,)*) => {
        const TITLES: &[&str] = &[$($title),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                follow($title).await;
            }
        )*
    };
}

recipes! {
    login_attempts: "Limit login attempts",
    bursts: "Allow a rate with bursts",
    delay: "Delay instead of deny",
    llm_tokens: "Budget LLM tokens",
    llm_tokens_through_envoy: "Budget LLM tokens through Envoy",
    address: "Block an address",
    network: "Limit or block a network",
    network_in_envoy_alone: "Block a network in Envoy alone",
    unlock: "Unlock a user",
    who_is_limited: "See who is limited",
    one_client_for_an_hour: "Raise one client for an hour",
    plans: "Sell plans",
    shadow: "Try a limit in shadow",
    own_service: "Test your service against tollgate",
}

#[test]
fn every_recipe_of_the_page_has_a_test() {
    let titles: Vec<_> = page::recipes().into_iter().map(|recipe| recipe.title).collect();
    assert_eq!(titles, TITLES);
}

/// Starts what the recipe needs and runs its blocks. Without a tool: a failure where `CI` is set, otherwise a line that
/// says so.
async fn follow(title: &str) {
    let recipe = page::recipes().into_iter().find(|recipe| recipe.title == title).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in recipe.files() {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut options = Options::default();
    if recipe.file("policies.yaml").is_some() {
        options = options.policies(dir.path().join("policies.yaml"));
    }
    let mut shell = Shell::at(dir.path());
    let redis = recipe.mentions("redis-cli").then(RedisServer::start);
    if let Some(redis) = &redis {
        let Some(redis) = redis else { return };
        // The recipes are about answers, not about the latency of a busy machine.
        options = options.redis(redis.url()).set("store.deadline=5s");
        shell.replace("-p 6390", &format!("-p {}", redis.port()));
    }
    let tollgate = options.start();
    shell.replace("localhost:8080", &tollgate.at.http.to_string());
    shell.administer(tollgate.at.admin);
    let edge = if recipe.mentions("localhost:10000") {
        let Some(program) = envoy::installed() else { return };
        let edge = Edge::start(&program, &recipe, tollgate.at.grpc).await;
        shell.replace("localhost:10000", &edge.envoy.edge.to_string());
        Some(edge)
    } else {
        None
    };
    run(&recipe, &shell).await;
    if let Some(edge) = edge {
        edge.assert_nothing_was_bypassed().await;
    }
    assert_eq!(tollgate.errors(), [""; 0]);
}

async fn run(recipe: &Recipe, shell: &Shell) {
    let examples = recipe.examples();
    assert!(!examples.is_empty(), "{}: nothing is run", recipe.title);
    for example in examples {
        shell.check(&example).await;
    }
}
