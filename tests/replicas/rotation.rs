//! The key that signs handles is replaced while callers hold and settle at two replicas: each
//! settles what the other has held by either key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::{JoinSet, spawn_blocking};
use tollgate::control::record::HOLD_KEYS;
use tollgate::control::registry::redis::RedisRegistry;
use tollgate::control::registry::{Change, Expect, Registry as _};
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::redis::RedisSettings;

use crate::support::grpc::{Client, ask, metadata, with_hits};
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;
use crate::topologies::alone;

const CALLERS: usize = 16;
const MAX: u64 = 100_000;
const TOKENS: u64 = 10_000_000;
/// The highest cost of a request, twice its estimate.
const MAX_COST: u64 = 8;
/// The longest time for which most requests run. Some end after all others.
const MAX_RUN: Duration = Duration::from_millis(200);

const POLICY: &str = "
domain: llm
descriptors:
  - key: user
    rate_limits:
      - {name: in-flight, algorithm: concurrency, max: 100000, ttl: 10m}
      - {name: tokens, algorithm: sliding_window, unit: day, requests_per_unit: 10000000,
         hold: {ttl: 10m, estimate: {default: 4}}}
";

/// The key that has signed until now, and the one that is made during the run.
const OLD: u8 = 7;
const NEW: u8 = 8;
/// The time until the old key has signed for a day.
const LEFT: Duration = Duration::from_secs(3);
/// The replicas look for new keys this long after each other.
const APART: Duration = Duration::from_secs(2);
/// A new key is made within 8 s, signs after 15 s more, and is taken within 5 s.
const ROTATED_WITHIN: Duration = Duration::from_mins(1);
const REPLICAS: usize = 2;

/// A settlement: the key that signed the handle, and what the replica signs that settles it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Settled {
    signed: u8,
    by_other: bool,
    signs: u8,
}

/// All that callers have done.
#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    held: AtomicU64,
    cost: AtomicU64,
    /// The key that each replica signed by last.
    signs: [AtomicU8; REPLICAS],
    settled: Mutex<BTreeSet<Settled>>,
}

impl Seen {
    fn have_rotated(&self) -> bool {
        self.signs.iter().all(|key| key.load(Ordering::SeqCst) == NEW)
    }
}

/// A request that runs.
struct Running {
    handle: String,
    replica: usize,
}

/// A caller of both replicas.
struct Caller {
    clients: Vec<Client>,
    random: Rng,
    seen: Arc<Seen>,
}

impl Caller {
    /// Holds and settles until the end; then settles what still runs.
    async fn call(mut self) {
        let mut long = Vec::new();
        while !self.seen.is_over.load(Ordering::SeqCst) {
            let running = self.hold().await;
            tokio::time::sleep(MAX_RUN.mul_f64(self.random.f64())).await;
            match self.random.u32(..16) {
                0 => long.push(running),
                _ => self.settle(running).await,
            }
        }
        for running in long {
            self.settle(running).await;
        }
    }

    async fn hold(&mut self) -> Running {
        let replica = self.random.usize(..REPLICAS);
        let asked = request("llm", &[&[("user", "ann")]]);
        let answer = ask(&mut self.clients[replica], asked).await;
        assert_eq!(answer.overall_code(), Code::Ok, "there is enough for all");
        let handle = metadata(&answer)["hold"].as_str().expect("a handle").to_owned();
        self.seen.held.fetch_add(1, Ordering::SeqCst);
        self.seen.signs[replica].store(key_of(&handle), Ordering::SeqCst);
        Running { handle, replica }
    }

    async fn settle(&mut self, running: Running) {
        let cost = self.random.u64(0..=MAX_COST);
        let at = self.random.usize(..REPLICAS);
        let by_other = at != running.replica;
        let entries = [("user", "ann"), ("hold", &*running.handle)];
        let ended = with_hits(request("llm", &[&entries]), cost);
        let signs = self.seen.signs[at].load(Ordering::SeqCst);
        let settled = Settled { signed: key_of(&running.handle), by_other, signs };
        let answer = ask(&mut self.clients[at], ended).await;
        assert_eq!(answer.overall_code(), Code::Ok, "a handle is refused: {settled:?}");
        self.seen.cost.fetch_add(cost, Ordering::SeqCst);
        self.seen.settled.lock().insert(settled);
    }
}

/// The number of the key that signed: the second byte, see `limiter::holds::handle`.
fn key_of(handle: &str) -> u8 {
    URL_SAFE_NO_PAD.decode(handle).unwrap()[1]
}

/// The registry as it is after almost a day with one key.
async fn write_key_of_yesterday(redis: &RedisServer) {
    let registry = RedisRegistry::connect(&RedisSettings::new(redis.url()).unwrap()).unwrap();
    let age = Duration::from_hours(24).saturating_sub(LEFT);
    let made_at = registry.now().await.unwrap().as_micros() - age.as_micros() as u64;
    let keys = json!({ "keys": [{ "id": OLD, "secret": "eWVzdGVyZGF5", "made_at": made_at }] });
    let value = Some(Bytes::from(keys.to_string()));
    let key = Bytes::from_static(HOLD_KEYS);
    registry.write(vec![Change { key, expect: Expect::Absent, value }]).await.unwrap();
}

/// The settlements and the like, over both replicas.
fn holds(replicas: &[Tollgate], state: &str) -> u64 {
    let series = format!("tollgate_holds_total{{state=\"{state}\"}}");
    replicas.iter().map(|replica| replica.metric(&series).unwrap() as u64).sum()
}

/// The slots that are taken, and the tokens that are used or held.
async fn taken(replica: &Tollgate) -> (u64, u64) {
    let peek = with_hits(request("llm", &[&[("user", "ann")]]), 0);
    let told = Operator::of(replica).await.explain(peek).await;
    let [jobs, tokens] = [0, 1].map(|limit| told.descriptors[0].counters[limit].remaining());
    // At a limit that holds, one hit is the least that can be asked for.
    (MAX - jobs, TOKENS - 1 - tokens)
}

async fn start_callers(replicas: &[Tollgate], seen: &Arc<Seen>) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut clients = Vec::new();
        for replica in replicas {
            clients.push(replica.client().await);
        }
        callers.spawn(Caller { clients, random: Rng::new(), seen: Arc::clone(seen) }.call());
    }
    callers
}

/// Waits until both replicas sign by the new key, and then a little longer. Ends early if a caller
/// fails.
async fn until_rotated(seen: &Seen, callers: &mut JoinSet<()>) {
    let begun = Instant::now();
    while !seen.have_rotated() {
        if let Some(failed) = callers.try_join_next() {
            failed.unwrap();
        }
        assert!(begun.elapsed() < ROTATED_WITHIN, "the key stays: {:?}", seen.signs);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("both sign by the new key after {:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_are_settled_once_while_their_key_is_replaced() {
    let _alone = alone().await;
    let Some(redis) = RedisServer::start() else { return };
    write_key_of_yesterday(&redis).await;
    let options = Options::serving(POLICY).redis(redis.url()).set("grpc.cores=1");
    let options = options.set("store.deadline=5s");
    let replicas = spawn_blocking(move || {
        let first = options.clone().start();
        std::thread::sleep(APART);
        vec![first, options.start()]
    });
    let replicas = replicas.await.unwrap();
    let seen = Arc::<Seen>::default();
    let mut callers = start_callers(&replicas, &seen).await;
    until_rotated(&seen, &mut callers).await;
    seen.is_over.store(true, Ordering::SeqCst);
    callers.join_all().await;

    let (held, cost) = (seen.held.load(Ordering::SeqCst), seen.cost.load(Ordering::SeqCst));
    println!("{held} held, {cost} used");
    until("nothing is held", async || (taken(&replicas[0]).await.0 == 0).then_some(())).await;
    assert_eq!(taken(&replicas[1]).await, (0, cost), "exactly what was used");
    // A slot and tokens of each.
    for state in ["reserved", "settled"] {
        assert_eq!(holds(&replicas, state), 2 * held, "{state}");
    }
    for state in ["again", "late", "unmatched", "invalid", "unguarded", "self_settled"] {
        assert_eq!(holds(&replicas, state), 0, "{state}");
    }
    for (signed, signs) in [(OLD, OLD), (OLD, NEW), (NEW, OLD), (NEW, NEW)] {
        let settled = Settled { signed, by_other: true, signs };
        let all = seen.settled.lock();
        assert!(all.contains(&settled), "not seen: {settled:?} of {all:?}");
    }
    assert!(held > 1_000, "{held} held");
    assert!(replicas.iter().all(|replica| replica.errors().is_empty()));
}
