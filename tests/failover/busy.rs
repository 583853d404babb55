//! A machine whose cores are all busy, and a Redis that is well: nothing is decided without it.

use std::process::{Child, Command};
use std::time::Duration;

use tokio::task::JoinSet;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{ask, is_degraded};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, request};

const POLICIES: &str = "
domain: d
descriptors:
  - {key: exact, rate_limit: {unit: day, requests_per_unit: 250}}
";

/// A process that uses a core; killed when dropped.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        // With less weight than the servers, as a build without optimization has no time to lose.
        let busy = ["-n", "15", "sh", "-c", "while :; do :; done"];
        Self(Command::new("nice").args(busy).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_calls_at_once_are_all_decided_by_redis() {
    let _alone = crate::alone().await;
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICIES).redis(redis.url()).set("grpc.cores=2").start();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tollgate.client().await);
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    let _busy: Vec<Busy> = (0..cores).map(|_| Busy::start()).collect();
    // The first calls also open streams and fill caches.
    for round in 0..=10 {
        let mut calls = JoinSet::new();
        for call in 0..500 {
            let (mut client, value) = (clients[call % 8].clone(), format!("{round}"));
            calls.spawn(async move {
                let answer = ask(&mut client, request("d", &[&[("exact", &value)]])).await;
                (answer.overall_code() == Code::Ok, is_degraded(&answer))
            });
        }
        let answers = calls.join_all().await;
        let admitted = answers.iter().filter(|(admitted, _)| *admitted).count();
        let degraded = answers.iter().filter(|(_, degraded)| *degraded).count();
        assert!(
            round == 0 || (admitted, degraded) == (250, 0),
            "round {round}: {admitted} passed, {degraded} degraded"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
