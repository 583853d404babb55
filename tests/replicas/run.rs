//! A run: load, kills and changes at the same time, then the verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use crate::callers::{Seen, call_until};
use crate::changes::{Policies, change_clients_until};
use crate::fleet::Fleet;
use crate::operators::Operators;
use crate::support::grpc::{ask, with_hits};
use crate::support::tollgate::{Options, request};
use crate::support::wait;
use crate::verdict::Run;
use crate::watched::{VALUE, Watched};

pub const LOAD: Duration = Duration::from_secs(8);
const CALLERS: usize = 64;
/// The variable with the seed of a run that is to be repeated.
const SEED: &str = "REPLICAS_SEED";

/// Runs replicas on the Redis that `options` lead to. `beside` is done to it meanwhile, until the
/// end that it gets, on a thread of its own.
pub async fn run<T: Send + 'static>(
    options: Options,
    beside: impl FnOnce(Instant, Rng) -> T + Send + 'static,
) -> T {
    let seed = std::env::var(SEED).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    // Shown if the test fails.
    println!("{SEED}={seed}");
    let mut random = Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut policies = Policies::new(dir.path(), random.fork());
    // Time enough: every call is decided by Redis, so the promise holds exactly.
    let options = options.policies(policies.file()).set("store.deadline=1s").set("grpc.cores=1");
    let fleet = Fleet::start(&options);
    let mut operators = Operators::new(fleet.addresses.clone(), random.fork());
    policies.apply(&mut operators).await;
    set_own(&fleet, &mut operators).await;

    let end = Instant::now() + LOAD;
    let callers = start_callers(end, &fleet, &mut random);
    let of_policies = Operators::new(fleet.addresses.clone(), random.fork());
    let fleet = kill_beside(end, fleet, random.fork());
    let changing_clients = change_clients_until(end, operators, random.fork());
    let beside = spawn_blocking(move || beside(end, random));
    let (policies, clients) =
        tokio::join!(policies.change_until(end, of_policies), changing_clients);
    let seen = callers.join_all().await.into_iter().fold(Seen::default(), Seen::merge);
    let (mut fleet, beside) = (fleet.await.unwrap(), beside.await.unwrap());
    spawn_blocking(move || {
        fleet.end();
        Run { seen, policies, clients, fleet }.judge();
    })
    .await
    .unwrap();
    beside
}

fn start_callers(end: Instant, fleet: &Fleet, random: &mut Rng) -> JoinSet<Seen> {
    let watched: Arc<[Watched]> = Watched::all().into();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(call_until(end, fleet.clients(), Arc::clone(&watched), random.fork()));
    }
    callers
}

fn kill_beside(end: Instant, mut fleet: Fleet, mut random: Rng) -> JoinHandle<Fleet> {
    spawn_blocking(move || {
        fleet.kill_until(end, &mut random);
        fleet
    })
}

/// Sets the clients that do not change, and waits until every replica has read them.
async fn set_own(fleet: &Fleet, operators: &mut Operators) {
    for watched in Watched::all() {
        let promised = watched.promise().limit().requests();
        let Some(client) = watched.own() else { continue };
        operators.upsert(client).await;
        let peek = with_hits(request(watched.domain(), &[&[(&watched.key(), VALUE)]]), 0);
        for mut client in fleet.clients() {
            wait::until("a client's own limit", async || {
                let answer = ask(&mut client, peek.clone()).await;
                let limit = answer.statuses[0].current_limit.as_ref()?.requests_per_unit;
                (limit == promised).then_some(())
            })
            .await;
        }
    }
}
