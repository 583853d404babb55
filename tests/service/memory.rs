//! What a live counter of the memory store takes of the real binary's resident memory.

use std::fs;
use std::ops::Range;

use futures_util::stream::{self, StreamExt as _};
use tokio::runtime::Builder;
use tollgate::edge::pb::{RateLimitRequest, rate_limit_response::Code};

use crate::support::tollgate::{Options, Tollgate, descriptor};

const COUNTERS: usize = 200_000;
/// Counters of one request; below the bound of 128.
const PER_REQUEST: usize = 100;
/// Requests under way.
const AT_ONCE: usize = 8;

/// What is measured.
const KEY: &str = "remote_address";
/// What the service answers before that.
const WARM: &str = "warm";

#[test]
fn token_buckets_take_less_than_100_bytes_each() {
    let tollgate = started("{algorithm: token_bucket, unit: hour, requests_per_unit: 100}");
    let before = resident(&tollgate);
    hit(&tollgate, KEY, COUNTERS);
    below(100.0, &tollgate, before);
}

#[test]
fn sliding_windows_take_less_than_100_bytes_with_one_run_and_150_with_ten() {
    // As many hits as slots: each is a run of its own.
    let limit = "{algorithm: sliding_window, slots: 10, unit: hour, requests_per_unit: 10}";
    let tollgate = started(limit);
    let before = resident(&tollgate);
    hit(&tollgate, KEY, COUNTERS);
    below(100.0, &tollgate, before);
    (0..9).for_each(|_| hit(&tollgate, KEY, COUNTERS));
    below(150.0, &tollgate, before);
}

/// One that has answered for a while, and so has what that takes.
fn started(limit: &str) -> Tollgate {
    let policies = format!(
        "
domain: d
descriptors:
  - {{key: {KEY}, rate_limit: {limit}}}
  - {{key: {WARM}, rate_limit: {{unit: hour, requests_per_unit: 1000000}}}}
"
    );
    let tollgate = Options::serving(&policies).start();
    (0..100).for_each(|_| hit(&tollgate, WARM, AT_ONCE * PER_REQUEST));
    tollgate
}

fn below(bytes: f64, tollgate: &Tollgate, before: f64) {
    let live = tollgate.metric("tollgate_memory_counters").unwrap();
    assert!(live >= COUNTERS as f64, "{live} live counters");
    let each = (resident(tollgate) - before) / COUNTERS as f64;
    assert!(each < bytes, "{each:.1} bytes per counter");
}

/// Bytes of memory of the process that are in use.
fn resident(tollgate: &Tollgate) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", tollgate.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024.0
}

/// One hit on each of `count` counters of the rule for `key`.
fn hit(tollgate: &Tollgate, key: &str, count: usize) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = tollgate.client().await;
        let requests = (0..count).step_by(PER_REQUEST).map(|first| {
            let mut client = client.clone();
            let request = request(key, first..first + PER_REQUEST);
            async move { client.should_rate_limit(request).await.unwrap().into_inner() }
        });
        let mut answers = stream::iter(requests).buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            assert_eq!(answer.overall_code(), Code::Ok);
        }
    });
}

fn request(key: &str, counters: Range<usize>) -> RateLimitRequest {
    let descriptor = |counter: usize| {
        let [_, a, b, c] = (counter as u32).to_be_bytes();
        descriptor(&[(key, &format!("10.{a}.{b}.{c}"))])
    };
    RateLimitRequest {
        domain: b"d".to_vec().into(),
        descriptors: counters.map(descriptor).collect(),
        hits_addend: 0,
    }
}
