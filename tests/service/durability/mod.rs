//! What operators were told is done stays done: through kill -9 of tollgates and of Redis, whoever writes meanwhile.

mod ledger;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tollgate::edge::admin::pb;
use tonic::{Code, Status};

use self::ledger::{Ledger, Outcome, Write};
use crate::random::Random;
use crate::support::operator::{Operator, daily};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::wait::until;

const SEED: u64 = 2_024;
const POLICY: &str = "{domain: d, descriptors: []}";
const WRITERS: u64 = 4;
/// Names of clients; few enough that writes meet.
const NAMES: u64 = 300;
/// Clients in a batch, at most.
const BATCH: u64 = 20;

/// What the writers share.
struct World {
    /// Where the tollgates listen at present.
    addresses: Mutex<Vec<SocketAddr>>,
    ledger: Ledger,
    /// How many writes were begun.
    begun: AtomicUsize,
    stamps: AtomicU32,
    wanted: usize,
}

impl World {
    fn new(tollgates: &[Tollgate], wanted: usize) -> Arc<Self> {
        Arc::new(Self {
            addresses: Mutex::new(tollgates.iter().map(|tollgate| tollgate.at.admin).collect()),
            ledger: Ledger::default(),
            begun: AtomicUsize::new(0),
            stamps: AtomicU32::new(1),
            wanted,
        })
    }

    fn is_done(&self) -> bool {
        self.ledger.acknowledged() >= self.wanted
    }

    /// Writes until enough is acknowledged.
    async fn write(&self, mut random: Random) {
        while !self.is_done() {
            let operator = self.operator(&mut random).await;
            // Until it fails: then perhaps by another replica.
            loop {
                let write = self.write_once(&operator, &mut random).await;
                let known = write.outcome != Outcome::Unknown;
                self.ledger.note(write);
                if !known || self.is_done() {
                    break;
                }
            }
        }
    }

    /// An operator of any tollgate that answers, registry included.
    async fn operator(&self, random: &mut Random) -> Operator {
        until("a tollgate whose registry answers", async || {
            let address = random.pick(&self.addresses.lock().clone());
            let operator = Operator::at(address).await.ok()?;
            let found = operator.get(daily("nobody", 0)).await;
            (found.unwrap_err().code() == Code::NotFound).then_some(operator)
        })
        .await
    }

    async fn write_once(&self, operator: &Operator, random: &mut Random) -> Write {
        let many = if random.chance(40) { 1 + random.up_to(BATCH - 1) } else { 1 };
        let clients: BTreeSet<_> =
            (0..many).map(|_| format!("client-{:03}", random.up_to(NAMES - 1))).collect();
        let clients: Vec<String> = clients.into_iter().collect();
        let delete = clients.len() == 1 && random.chance(40);
        let stamp = (!delete).then(|| self.stamps.fetch_add(1, Ordering::Relaxed));
        self.begun.fetch_add(1, Ordering::Relaxed);
        let answer = match stamp {
            None => operator.delete(daily(&clients[0], 0)).await,
            Some(stamp) => {
                operator.put(clients.iter().map(|name| daily(name, stamp)).collect()).await
            }
        };
        Write { stamp, clients, outcome: outcome(answer) }
    }

    /// Resolves once so many writes were begun: others are under way then.
    async fn begun(&self, count: usize) {
        until("writers go on", async || {
            (self.begun.load(Ordering::Relaxed) >= count || self.is_done()).then_some(())
        })
        .await;
    }
}

fn outcome(answer: Result<pb::ManageClientsResponse, Status>) -> Outcome {
    match answer {
        Ok(answer) => Outcome::Done(answer.revision()),
        Err(status) if status.code() == Code::NotFound => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    }
}

/// Kills with -9 what is hit and starts it again, at `count` moments between the writes that are to come.
async fn disturb(
    world: &World,
    tollgates: &mut [Tollgate],
    redis: &mut Option<RedisServer>,
    start: impl Fn(&str) -> Tollgate,
    (count, random): (usize, &mut Random),
) {
    let url = redis.as_ref().map(RedisServer::url).unwrap_or_default();
    for i in 1..=count {
        world.begun(world.wanted * i / (count + 1) + random.up_to(20) as usize).await;
        match redis {
            Some(redis) if i % 3 == 0 => redis.restart(),
            _ => {
                let hit = random.up_to(tollgates.len() as u64 - 1) as usize;
                tollgates[hit].signal("KILL");
                tollgates[hit].wait();
                tollgates[hit] = start(&url);
                world.addresses.lock()[hit] = tollgates[hit].at.admin;
            }
        }
    }
}

/// Begins the writers of `world`, each with a thread and random numbers of its own.
fn begin_writing(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let writer = |writer| {
        let world = Arc::clone(world);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(world.write(Random::new(SEED + writer)));
        })
    };
    (0..WRITERS).map(writer).collect()
}

/// Every client, once this tollgate shows `revision`.
async fn list(tollgate: &Tollgate, revision: u64) -> Vec<pb::Client> {
    let operator = Operator::of(tollgate).await;
    until("the replica has followed", async || {
        let (clients, shown) = operator.list().await.unwrap();
        (shown >= revision).then_some(clients)
    })
    .await
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_with_two_replicas_and_redis_killed() {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(redis) = RedisServer::start_with(&arguments) else { return };
    let start = |url: &str| Options::serving(POLICY).redis(url).start();
    let mut tollgates = vec![start(&redis.url()), start(&redis.url())];
    let mut redis = Some(redis);
    let world = World::new(&tollgates, 1_000);
    let writers = begin_writing(&world);
    let mut random = Random::new(SEED);
    disturb(&world, &mut tollgates, &mut redis, start, (12, &mut random)).await;
    for writer in writers {
        writer.join().unwrap();
    }

    let context = format!("seed {SEED}, {} writes unknown", world.ledger.unknown());
    assert!(world.ledger.unknown() > 0, "nothing was hit: {context}");
    let newest = Operator::of(&tollgates[0]).await.upsert(daily("last", 1)).await.unwrap();
    let newest: u64 = newest.etag.parse().unwrap();
    // A third one knows only the store.
    let fresh = start(&redis.as_ref().unwrap().url());
    let stored = list(&fresh, newest).await;
    for tollgate in &tollgates {
        assert_eq!(list(tollgate, newest).await, stored, "{context}");
    }
    let written: Vec<_> = stored.into_iter().filter(|c| c.entries[0].value != "last").collect();
    world.ledger.check(&written, &context);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_without_redis_when_tollgate_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let start = |_: &str| Options::serving(POLICY).data(dir.path()).start();
    let mut tollgates = vec![start("")];
    let world = World::new(&tollgates, 300);
    let writers = begin_writing(&world);
    let mut random = Random::new(SEED);
    disturb(&world, &mut tollgates, &mut None, start, (6, &mut random)).await;
    for writer in writers {
        writer.join().unwrap();
    }

    let context = format!("seed {SEED}, {} writes unknown", world.ledger.unknown());
    assert!(world.ledger.unknown() > 0, "nothing was hit: {context}");
    let before = list(&tollgates[0], 1).await;
    world.ledger.check(&before, &context);
    tollgates[0].signal("KILL");
    tollgates[0].wait();
    assert_eq!(list(&start(""), 1).await, before, "{context}: another after the last start");
}

#[tokio::test]
async fn one_of_sixteen_writers_with_one_etag_wins() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).start();
    let replicas = [start(), start()];
    let operators = [Operator::of(&replicas[0]).await, Operator::of(&replicas[1]).await];
    let mut etag = operators[0].upsert(daily("raced", 0)).await.unwrap().etag;
    for round in 0..20 {
        let contend = async |writer: u32| {
            let mut wanted = daily("raced", 1 + round * 16 + writer);
            wanted.etag.clone_from(&etag);
            operators[writer as usize % 2].put(vec![wanted]).await
        };
        let answers = futures_util::future::join_all((0..16).map(contend)).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 15), "round {round}");
        let codes: BTreeSet<_> =
            lost.iter().map(|e| e.as_ref().unwrap_err().code() as i32).collect();
        assert_eq!(codes, BTreeSet::from([Code::Aborted as i32]), "round {round}");
        let winner = won[0].as_ref().unwrap().clients[0].clone();
        for operator in &operators {
            assert_eq!(operator.get(daily("raced", 0)).await.unwrap(), winner, "round {round}");
        }
        etag = winner.etag;
    }
}
