//! What tollgate holds in memory: with nothing to do, and for each live counter.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::{self};
use tokio::runtime::Builder;
use tollgate::edge::pb::rate_limit_descriptor::Entry;
use tollgate::edge::pb::{RateLimitDescriptor, RateLimitRequest};

use crate::servers::{DOMAIN, Gate, KEY};
use crate::store::Store;
use crate::support::tollgate::Tollgate;
use crate::table::{Line, Target};

const COUNTERS: usize = 1_000_000;
/// Counters of one request; below the bound of 128.
const PER_REQUEST: usize = 100;
/// Requests under way.
const AT_ONCE: usize = 16;

/// Limits whose counters stay until all are counted.
const BUCKET: &str = "{algorithm: token_bucket, unit: hour, requests_per_unit: 10}";
const WINDOW: &str =
    "{algorithm: sliding_window, unit: minute, unit_multiplier: 5, requests_per_unit: 1000}";
/// Hits that are further apart than this are in different runs of the window: a tenth of its five minutes.
const RUN: Duration = Duration::from_secs(30);

/// What the rows are called.
pub const NAMES: [&str; 3] = ["memory-idle", "memory-token-bucket", "memory-sliding-window"];

/// Those that are wanted.
pub fn lines(wanted: impl Fn(&str) -> bool) -> Vec<Line> {
    let [idle_name, bucket, window] = NAMES;
    let mut lines = Vec::new();
    if wanted(idle_name) {
        lines.push(idle(idle_name));
    }
    if wanted(bucket) {
        let targets = [Target::Below(100.0, "bytes")];
        lines.extend(counters(bucket, "token bucket", BUCKET, &targets));
    }
    if wanted(window) {
        let targets = [Target::Below(150.0, "bytes"), Target::None];
        lines.extend(counters(window, "sliding window of 10 slots", WINDOW, &targets));
    }
    lines
}

fn idle(name: &str) -> Line {
    let tollgate = Gate::memory(BUCKET).start(&Store::Memory, &[]);
    fill(&tollgate, 1);
    let megabytes = resident(&tollgate) / 1e6;
    eprintln!("{name}: {megabytes:.1} MB");
    Line {
        name: name.to_owned(),
        what: "resident memory, idle, in MB".to_owned(),
        figure: Ok(megabytes),
        target: Target::Below(30.0, "MB"),
        absolute: String::new(),
    }
}

/// Bytes of each of a million counters; with one run, then with one more for each further target.
fn counters(name: &str, what: &str, limit: &'static str, targets: &[Target]) -> Vec<Line> {
    let tollgate = Gate::memory(limit).start(&Store::Memory, &["store.memory_max_keys=2000000"]);
    fill(&tollgate, 1);
    let idle = resident(&tollgate);
    let line = |(runs, target): (usize, &Target)| {
        if runs > 0 {
            wait_for_next_run();
        }
        fill(&tollgate, COUNTERS);
        let live = tollgate.metric("tollgate_memory_counters").unwrap_or_default();
        assert!((live - COUNTERS as f64).abs() < 1.0, "{live} live counters, not {COUNTERS}");
        let bytes = (resident(&tollgate) - idle) / live;
        let hits = if runs == 0 { "one hit each" } else { "hits in two runs each" };
        eprintln!("{name}: {bytes:.1} bytes per counter, {hits}");
        Line {
            name: name.to_owned(),
            what: format!(
                "memory store, {what}, {COUNTERS} live counters, {hits}: bytes per counter"
            ),
            figure: Ok(bytes),
            target: *target,
            absolute: format!(
                "{:.0} MB in all; keys of {} bytes",
                resident(&tollgate) / 1e6,
                key_bytes()
            ),
        }
    };
    targets.iter().enumerate().map(line).collect()
}

/// Bytes of memory of the process that are in use.
pub fn resident(tollgate: &Tollgate) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", tollgate.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024.0
}

/// The value of the descriptor that the counter is for; all of the same length.
fn value(counter: usize) -> String {
    format!("client-{counter:07}")
}

fn key_bytes() -> usize {
    format!("tollgate:1:{{{DOMAIN}|{KEY}={}}}:token_bucket:3600s", value(0)).len()
}

/// One hit for each of `count` counters.
fn fill(tollgate: &Tollgate, count: usize) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = tollgate.client().await;
        let requests = (0..count).step_by(PER_REQUEST).map(|first| {
            let mut client = client.clone();
            let request = request(first..count.min(first + PER_REQUEST));
            async move { client.should_rate_limit(request).await.unwrap() }
        });
        stream::iter(requests).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    });
}

pub fn request(counters: std::ops::Range<usize>) -> RateLimitRequest {
    let descriptor = |counter| RateLimitDescriptor {
        entries: vec![Entry { key: KEY.into(), value: value(counter).into() }],
        ..RateLimitDescriptor::default()
    };
    RateLimitRequest {
        domain: DOMAIN.into(),
        descriptors: counters.map(descriptor).collect(),
        hits_addend: 0,
    }
}

/// Runs begin at multiples of their width since 1970.
fn wait_for_next_run() {
    let run = || UNIX_EPOCH.elapsed().unwrap().as_micros() / RUN.as_micros();
    let present = run();
    while run() == present {
        std::thread::sleep(Duration::from_millis(50));
    }
}
