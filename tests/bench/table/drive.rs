//! Redis, driven as hard as it goes, from a process of its own: by plain INCRBY, pipelined over one connection, and by
//! tollgate's store.
//!
//! The store is driven without gRPC in front: a server, its callers and Redis on two cores leave Redis idle for a good
//! part of the time, and what a decision costs Redis shows only when it is never idle. The calls of the script are those
//! that a server sends: the same task forms them from the requests that wait.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tollgate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit, Part};
use tollgate::load::CpuClock;
use tollgate::store::LimitStore as _;
use tollgate::store::redis::{RedisSettings, RedisStore};

use crate::sample::Sample;
use crate::servers::SERVER_CORE;
use crate::support::redis::RedisServer;

/// Different counters.
const KEYS: usize = 10_000;
/// Frames under way, as two replicas together have them: Redis need not wait for the next.
const FRAMES: usize = 4;
/// Limits of a full frame, and commands that are written at once.
const BATCH: usize = 64;
/// Requests of the store under way: as many frames wait as are under way.
const CALLERS: usize = 2 * FRAMES * BATCH;

/// What Redis is asked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Driver {
    Incrby,
    TokenBucket,
    SlidingWindow,
}

/// The command line of the process that drives.
#[derive(Args, Debug)]
pub struct DriveArgs {
    #[arg(value_enum)]
    what: Driver,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    redis_pid: u32,
    #[arg(long)]
    milliseconds: u64,
}

/// What it prints.
#[derive(Debug, Deserialize, Serialize)]
struct Told {
    operations_per_second: f64,
    redis_cpu: f64,
}

impl Driver {
    /// Drives `redis` from the server's core.
    pub fn sample(self, redis: &RedisServer, duration: Duration) -> Sample {
        let what = self.to_possible_value().unwrap();
        let output = Command::new("taskset")
            .args(["-c", &SERVER_CORE.to_string()])
            .arg(std::env::current_exe().unwrap())
            .args(["drive", what.get_name()])
            .args(["--port", &redis.port().to_string()])
            .args(["--redis-pid", &redis.pid().to_string()])
            .args(["--milliseconds", &duration.as_millis().to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "driving Redis failed: {said}");
        let told: Told = serde_json::from_slice(&output.stdout).unwrap();
        Sample {
            calls_per_second: told.operations_per_second,
            decisions_per_second: told.operations_per_second,
            redis_cpu: Some(told.redis_cpu),
            ..Sample::default()
        }
    }
}

/// Drives, and prints what came of it.
pub fn run(args: &DriveArgs) {
    let duration = Duration::from_millis(args.milliseconds);
    let told = match args.what {
        Driver::Incrby => incrby(args, duration),
        Driver::TokenBucket => store(args, duration, Algorithm::TokenBucket { burst: 1_000_000 }),
        Driver::SlidingWindow => {
            store(args, duration, Algorithm::SlidingWindow { slots: Algorithm::DEFAULT_SLOTS })
        }
    };
    println!("{}", serde_json::to_string(&told).unwrap());
}

/// Counts operations from when the warm-up is over.
struct Watch {
    begin: Instant,
    warm: Instant,
    end: Instant,
    redis_pid: u32,
    measured: Option<(Instant, CpuClock, u64)>,
}

impl Watch {
    fn start(redis_pid: u32, duration: Duration) -> Self {
        let begin = Instant::now();
        let warm = begin + duration / 10;
        Self { begin, warm, end: warm + duration, redis_pid, measured: None }
    }

    /// Whether to go on, with `operations` done so far.
    fn goes_on(&mut self, operations: u64) -> bool {
        let now = Instant::now();
        if self.measured.is_none() && now >= self.warm {
            self.measured = Some((now, CpuClock::start(self.redis_pid), operations));
        }
        now < self.end
    }

    fn told(self, operations: u64) -> Told {
        let (since, clock, before) = self.measured.expect("more time than the warm-up");
        let seconds = since.elapsed().as_secs_f64();
        let used = clock.elapsed().1.expect("the CPU time of Redis");
        assert!(self.begin < since && operations > before, "nothing was measured");
        Told {
            operations_per_second: (operations - before) as f64 / seconds,
            redis_cpu: used / seconds,
        }
    }
}

/// The name of a counter, as long as the store's.
fn name(index: usize) -> String {
    format!("tollgate:1:{{bench|client=load-{index}}}:token_bucket:1s")
}

/// `INCRBY counter 1`, a batch at a time, several batches under way.
fn incrby(args: &DriveArgs, duration: Duration) -> Told {
    let mut redis = TcpStream::connect(("127.0.0.1", args.port)).unwrap();
    redis.set_nodelay(true).unwrap();
    let command =
        |name: String| format!("*3\r\n$6\r\nINCRBY\r\n${}\r\n{name}\r\n$1\r\n1\r\n", name.len());
    let batches: Vec<String> = (0..KEYS)
        .collect::<Vec<_>>()
        .chunks_exact(BATCH)
        // Names of its own, as long: those of the store hold no numbers.
        .map(|chunk| chunk.iter().map(|i| command(name(*i).replace(":1s", ":+1"))).collect())
        .collect();
    let mut next = batches.iter().cycle();
    for batch in next.by_ref().take(FRAMES) {
        redis.write_all(batch.as_bytes()).unwrap();
    }
    let mut watch = Watch::start(args.redis_pid, duration);
    let (mut answered, mut to_refill) = (0_u64, BATCH as u64);
    let mut buffer = vec![0; 1 << 16];
    while watch.goes_on(answered) {
        let read = redis.read(&mut buffer).unwrap();
        let answers = &buffer[..read];
        assert!(read > 0 && !answers.contains(&b'-'), "INCRBY failed");
        answered += answers.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        while answered >= to_refill {
            redis.write_all(next.next().unwrap().as_bytes()).unwrap();
            to_refill += BATCH as u64;
        }
    }
    watch.told(answered)
}

/// The store with all its callers on one thread.
fn store(args: &DriveArgs, duration: Duration, algorithm: Algorithm) -> Told {
    let groups: Arc<Vec<Group>> =
        Arc::new((0..KEYS).map(|index| group(&name(index), algorithm)).collect());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = connected(args.port).await;
        let watch = Watch::start(args.redis_pid, duration);
        let shared = Arc::new(parking_lot::Mutex::new((watch, 0_u64)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (store, groups, shared) = (store.clone(), Arc::clone(&groups), Arc::clone(&shared));
            callers.spawn(async move {
                let mut random = fastrand::Rng::new();
                loop {
                    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                    let group = &groups[random.usize(..KEYS)];
                    let answer = store.decide(group, Commit::Together, deadline).await;
                    assert!(answer.readings[0].is_some_and(|reading| reading.passed));
                    let (watch, decided) = &mut *shared.lock();
                    *decided += 1;
                    if !watch.goes_on(*decided) {
                        return;
                    }
                }
            });
        }
        callers.join_all().await;
        let (watch, decided) = Arc::into_inner(shared).unwrap().into_inner();
        watch.told(decided)
    })
}

async fn connected(port: u16) -> RedisStore {
    let url = format!("redis://127.0.0.1:{port}");
    let settings = RedisSettings { frames_in_flight: FRAMES, ..RedisSettings::new(url) };
    let store = RedisStore::connect(&settings).unwrap();
    while !store.is_connected() {
        tokio::task::yield_now().await;
    }
    store
}

/// A request of one descriptor with a limit that nobody reaches.
fn group(name: &str, algorithm: Algorithm) -> Group {
    let limit = Limit::new(1_000_000, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap();
    let kind = if let Algorithm::TokenBucket { .. } = algorithm { "" } else { ":sliding" };
    let key = Key::new(format!("{name}{kind}").into_bytes());
    let part = Part { quota: false, shadow: false, claims: 0..1 };
    Group {
        parts: vec![part],
        claims: vec![Claim { key, limit, hits: Hits::Take(1), lease: None }],
    }
}
