//! Redis, driven as hard as it goes, from a process of its own: by plain INCRBY, and by the store's script.
//!
//! What a decision costs Redis shows only when Redis is never idle, and neither a server nor the store alone keeps it busy
//! from one core beside it. So both are asked in the same way: by commands that were written before the clock starts, a
//! batch at a time, several under way on one connection. The batches of the script are the frames that the store sends
//! when more requests wait than a frame holds. Counters are drawn at random, which is a matter of Redis' memory caches.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tollgate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit, Part};
use tollgate::store::redis::script::{Encoded, Frame, Script};

use crate::cpu::CpuClock;
use crate::sample::Sample;
use crate::servers::SERVER_CORE;
use crate::support::redis::RedisServer;

/// Different counters.
const KEYS: usize = 10_000;
/// Frames under way, as two replicas together have them: Redis need not wait for the next.
const FRAMES: usize = 4;
/// Limits of a full frame, and commands that are written at once.
const BATCH: usize = 64;
/// Different batches, so that counters recur as at random.
const BATCHES: usize = 1_000;

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
    let slots = Algorithm::DEFAULT_SLOTS;
    let batches = match args.what {
        Driver::Incrby => Batches::of_incrby(),
        Driver::TokenBucket => {
            Batches::of_script(args.port, Algorithm::TokenBucket { burst: 1_000_000 })
        }
        Driver::SlidingWindow => Batches::of_script(args.port, Algorithm::SlidingWindow { slots }),
    };
    let told = batches.drive(args, duration);
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

/// Commands for [`BATCH`] operations each.
struct Batches {
    commands: Vec<Vec<u8>>,
    /// Lines of an answer to each.
    lines: u64,
}

impl Batches {
    /// `INCRBY counter 1`.
    fn of_incrby() -> Self {
        let batch = || {
            let mut pipeline = redis::pipe();
            for counter in counters() {
                pipeline.cmd("INCRBY").arg(name(counter, "plain_number:1s")).arg(1);
            }
            pipeline.get_packed_pipeline()
        };
        Self { commands: (0..BATCHES).map(|_| batch()).collect(), lines: BATCH as u64 }
    }

    /// Requests of one descriptor, with a limit that nobody reaches.
    fn of_script(port: u16, algorithm: Algorithm) -> Self {
        let script = Script::with_server_time();
        let client = redis::Client::open(("127.0.0.1", port)).unwrap();
        script.load().exec(&mut client.get_connection().unwrap()).unwrap();
        let mut lines = 0;
        let mut batch = || {
            let mut frame = Frame::default();
            for counter in counters() {
                frame.push(&request(counter, algorithm)).unwrap();
            }
            // The head of the list, and how many states could not be read.
            lines = 2 + frame.integers().iter().sum::<usize>() as u64;
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.hash()).arg(frame.keys().len());
            for key in frame.keys() {
                command.arg(key);
            }
            command.arg(&frame.args()).get_packed_command()
        };
        Self { commands: (0..BATCHES).map(|_| batch()).collect(), lines }
    }

    fn drive(&self, args: &DriveArgs, duration: Duration) -> Told {
        let mut redis = TcpStream::connect(("127.0.0.1", args.port)).unwrap();
        redis.set_nodelay(true).unwrap();
        let mut next = self.commands.iter().cycle();
        for batch in next.by_ref().take(FRAMES) {
            redis.write_all(batch).unwrap();
        }
        let mut watch = Watch::start(args.redis_pid, duration);
        let (mut lines, mut answered) = (0, 0);
        let mut buffer = vec![0; 1 << 16];
        while watch.goes_on(answered * BATCH as u64) {
            let read = redis.read(&mut buffer).unwrap();
            let answers = &buffer[..read];
            // A refused command, or a denied request.
            assert!(read > 0 && !answers.contains(&b'-'), "{}", String::from_utf8_lossy(answers));
            lines += answers.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
            while lines >= (answered + 1) * self.lines {
                redis.write_all(next.next().unwrap()).unwrap();
                answered += 1;
            }
        }
        watch.told(answered * BATCH as u64)
    }
}

/// The counters of one batch.
fn counters() -> impl Iterator<Item = usize> {
    std::iter::repeat_with(|| fastrand::usize(..KEYS)).take(BATCH)
}

/// The name of a counter as the store has it, and in the same way for INCRBY.
fn name(index: usize, kind: &str) -> String {
    format!("tollgate:1:{{bench|client=load-{index}}}:{kind}")
}

fn request(counter: usize, algorithm: Algorithm) -> Encoded {
    let limit = Limit::new(1_000_000, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap();
    let kind = if let Algorithm::TokenBucket { .. } = algorithm {
        "token_bucket:1s"
    } else {
        "sliding_window:1s:10"
    };
    let key = Key::new(name(counter, kind).into_bytes());
    let part = Part { quota: false, shadow: false, claims: 0..1 };
    let group = Group {
        parts: vec![part],
        claims: vec![Claim { key, limit, hits: Hits::Take(1), lease: None }],
    };
    Encoded::new(&group, Commit::Together).unwrap()
}
