//! Runs one attack: a caller of 200 calls a second before and during it, and the resident memory of
//! tollgate all the while.
//!
//! The attackers, the caller and tollgate share the cores of the machine, also with other programs.
//! So attackers are paced, the same caller calls a second tollgate that nobody attacks, and p99 has
//! a floor below which its growth does not count. The p99 of the attacked one may be twice its own
//! before the attack, or twice that of the other during it. An attack goes on until its effect shows
//! in the metrics, however slow the machine is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::formula::Formula;
use crate::support::grpc::Client;
use crate::support::tollgate::{Addresses, Options, Tollgate, request};
use crate::tls::House;

pub const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 4000000000}}
";

/// One row at a time: they are measured.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other row runs.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time between two calls of the caller.
const CALL_EVERY: Duration = Duration::from_millis(5);
const CALLS_BEFORE: usize = 80;
const CALLS_DURING: usize = 200;
/// A p99 below this, half the timeout that Envoy has by default, is as good as any: the attackers take
/// the cores of the same machine.
const FLOOR: Duration = Duration::from_millis(10);
/// Other programs take the cores, too. A row that fails for time alone is run again.
const TRIES: usize = 5;

/// What an attack sees of the row.
#[derive(Clone)]
pub struct Field {
    pub at: Addresses,
    on: Arc<AtomicBool>,
}

impl Field {
    /// True until the caller has made its calls and the attack has had its effect.
    pub fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Waits for the end.
    pub fn hold(&self) {
        while self.on() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One attack.
pub struct Row<'a> {
    pub name: &'static str,
    pub start: &'a dyn Fn() -> Options,
    /// The house of a gRPC listener with TLS; none: in clear.
    pub house: Option<&'a House>,
    /// The bytes that it may take by the formula.
    pub allowed: &'a dyn Fn(&Formula) -> u64,
    /// Attacks until the field is off, and lets go of its connections at its end.
    pub attack: &'a (dyn Fn(&Field) + Sync),
    /// A metric, and what it reaches by the attack.
    pub effect: Option<(&'a str, f64)>,
    /// Looks at metrics and log after the attack.
    pub evidence: &'a dyn Fn(&Tollgate),
}

impl Row<'_> {
    pub fn run(&self) {
        let _alone = alone();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        for attempt in 1.. {
            let (tollgate, control) = ((self.start)().start(), (self.start)().start());
            files(tollgate.pid());
            let (p99, bound) = self.measure(&runtime, &tollgate, &control);
            (self.evidence)(&tollgate);
            assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
            if p99 <= bound {
                break;
            }
            assert!(attempt < TRIES, "{}: p99 {p99:?}, not {bound:?}", self.name);
        }
    }

    async fn client(&self, tollgate: &Tollgate) -> Client {
        match self.house {
            Some(house) => house.client(tollgate.at.grpc).await,
            None => tollgate.client().await,
        }
    }

    /// p99 during the attack, and what it may be.
    fn measure(
        &self,
        runtime: &Runtime,
        tollgate: &Tollgate,
        control: &Tollgate,
    ) -> (Duration, Duration) {
        let clients =
            runtime.block_on(async { [self.client(tollgate).await, self.client(control).await] });
        runtime.block_on(calls(&clients, CALLS_BEFORE / 2));
        let [before, _] = runtime.block_on(calls(&clients, CALLS_BEFORE));
        let start = resident(tollgate.pid());
        let (peak, [during, other]) = self.attacked(runtime, tollgate, &clients);
        // The allocator gives memory back a little later.
        std::thread::sleep(Duration::from_millis(200));
        let after = resident(tollgate.pid());
        let allowed = (self.allowed)(&Formula::documented());
        let (grown, left) = (peak.saturating_sub(start), after.saturating_sub(start));
        println!(
            "| {} | {:.1} of {:.1} MiB, then {:.1} | {:.1} ms | {:.1} ms | {:.1} ms |",
            self.name,
            mib(grown),
            mib(allowed),
            mib(left),
            ms(before),
            ms(during),
            ms(other)
        );
        assert!(grown <= allowed, "{}: {grown} bytes more, not {allowed}", self.name);
        assert!(left <= allowed, "{}: {left} bytes after the end", self.name);
        (during, (2 * before.max(other)).max(FLOOR))
    }

    /// The peak of memory, and the p99 of calls to `clients`, during the attack.
    fn attacked(
        &self,
        runtime: &Runtime,
        tollgate: &Tollgate,
        clients: &[Client; 2],
    ) -> (u64, [Duration; 2]) {
        let (on, peak) = (Arc::new(AtomicBool::new(true)), AtomicU64::new(0));
        let field = Field { at: tollgate.at, on: Arc::clone(&on) };
        let over = AtomicBool::new(false);
        let during = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    peak.fetch_max(resident(tollgate.pid()), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let _over = Ends(|| over.store(true, Ordering::Relaxed));
            let attack = scope.spawn(|| (self.attack)(&field));
            let off = Ends(|| on.store(false, Ordering::Relaxed));
            let during = runtime.block_on(calls(clients, CALLS_DURING));
            if let Some((series, least)) = self.effect {
                tollgate.wait_for_metric(series, least);
            }
            drop(off);
            attack.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            during
        });
        (peak.into_inner(), during)
    }
}

/// Tells threads of the end, also where a call fails.
struct Ends<F: Fn()>(F);

impl<F: Fn()> Drop for Ends<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The 99th percentiles of so many calls to each of two at a steady rate. Each call has its answer.
async fn calls(clients: &[Client; 2], count: usize) -> [Duration; 2] {
    let (first, second) = tokio::join!(steady(&clients[0], count), steady(&clients[1], count));
    [first, second]
}

async fn steady(client: &Client, count: usize) -> Duration {
    let asked = request("d", &[&[("k", "v")]]);
    let (mut ticks, mut tasks) = (tokio::time::interval(CALL_EVERY), JoinSet::new());
    for _ in 0..count {
        ticks.tick().await;
        let (mut client, asked) = (client.clone(), asked.clone());
        tasks.spawn(async move {
            let begun = Instant::now();
            let answer = client.should_rate_limit(asked).await.expect("an answer").into_inner();
            assert_eq!(answer.overall_code(), Code::Ok);
            begun.elapsed()
        });
    }
    let mut times = tasks.join_all().await;
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Resident memory in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    kilobytes << 10
}

/// Lets tollgate and this process open as many files as they may.
fn files(pid: u32) {
    for pid in [pid, std::process::id()] {
        let mut prlimit = std::process::Command::new("prlimit");
        prlimit.arg(format!("--pid={pid}")).arg("--nofile=16384:");
        let raised = prlimit.output().expect("prlimit of util-linux");
        assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
    }
}
