//! The load on a server: `tollgate load` as a process of its own, and what it says.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::sample::Sample;
use crate::servers::{DOMAIN, KEY, OTHER_CORE, Running};
use crate::store::Store;
use crate::support::tollgate::command;

/// The number of calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// As many as are answered.
    Free,
    /// So many in an open loop.
    PerSecond(u64),
    /// Half of those that the server answers, in an open loop.
    HalfOfMost,
}

/// What callers do, `tollgate load`.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: usize,
    pub in_flight: usize,
    pub keys: usize,
    pub descriptors: usize,
    pub pace: Pace,
    pub threads: usize,
    /// Whether every request is over its limit, or none.
    pub denied: bool,
}

impl Load {
    /// 4 connections with 64 calls under way on each, over 10 000 keys.
    pub const USUAL: Self = Self {
        connections: 4,
        in_flight: 64,
        keys: 10_000,
        descriptors: 1,
        pace: Pace::Free,
        threads: 1,
        denied: false,
    };

    /// With the rate of its pace on this server, which is measured if it is not known.
    pub fn paced(self, server: &Running, store: &Store, pinned: bool, duration: Duration) -> Self {
        if self.pace != Pace::HalfOfMost {
            return self;
        }
        let free = Self { pace: Pace::Free, ..self };
        let most = free.run(server, store, pinned, duration).calls_per_second;
        Self { pace: Pace::PerSecond(most as u64 / 2), ..self }
    }

    pub fn run(&self, server: &Running, store: &Store, pinned: bool, duration: Duration) -> Sample {
        let before = server.degraded();
        let mut command = self.command(&server.target(), pinned, duration);
        // The server first, as the sample reads them.
        for pid in std::iter::once(server.pid()).chain(store.pids()) {
            command.args(["--pid", &pid.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "tollgate load failed");
        let told: Told = serde_json::from_str(&said).unwrap();
        told.sample(self, server.degraded() - before)
    }

    fn command(&self, target: &[String], pinned: bool, duration: Duration) -> Command {
        let program = command().get_program().to_owned();
        let mut command = if pinned { Command::new("taskset") } else { Command::new(&program) };
        if pinned {
            command.args(["-c", &OTHER_CORE.to_string()]).arg(&program);
        }
        command.arg("load").args(target).arg("--json");
        command.args(["--domain", DOMAIN, "--key", KEY]);
        command.args(["--duration", &format!("{}ms", duration.as_millis())]);
        for (flag, value) in [
            ("--connections", self.connections),
            ("--in-flight", self.in_flight),
            ("--keys", self.keys),
            ("--descriptors", self.descriptors),
            ("--threads", self.threads),
        ] {
            command.args([flag, &value.to_string()]);
        }
        if let Pace::PerSecond(rate) = self.pace {
            command.args(["--rate", &rate.to_string()]);
        }
        command
    }
}

/// What `tollgate load --json` says.
#[derive(Debug, Deserialize)]
struct Told {
    seconds: f64,
    calls: u64,
    calls_per_second: f64,
    decisions_per_second: f64,
    over_limit: u64,
    errors: u64,
    missed: u64,
    p99_ms: f64,
    cpu_seconds: Vec<(u32, Option<f64>)>,
}

impl Told {
    fn sample(self, load: &Load, degraded: f64) -> Sample {
        let used = self.cpu_seconds.iter().map(|(_, used)| *used);
        let per_second: Option<Vec<f64>> = used.map(|used| Some(used? / self.seconds)).collect();
        let per_second = per_second.expect("the CPU time of the server and of every Redis");
        let (server_cpu, redis_cpu) = per_second.split_first().expect("the server's CPU time");
        let mut remarks = Vec::new();
        let mut remark = |count: u64, what: &str| {
            if count > 0 {
                let share = 100.0 * count as f64 / self.calls.max(1) as f64;
                remarks.push(format!("{share:.2} % {what}"));
            }
        };
        remark(self.errors, "errors");
        remark(self.missed, "not made");
        remark(degraded as u64 / load.descriptors as u64, "decided without Redis");
        if !load.denied {
            remark(self.over_limit, "denied");
        } else if self.over_limit < self.calls / 2 {
            // Not all have to be: the first of a key pass.
            remark(self.calls - self.over_limit, "admitted");
        }
        Sample {
            calls_per_second: self.calls_per_second,
            decisions_per_second: self.decisions_per_second,
            p99_ms: self.p99_ms,
            server_cpu: *server_cpu,
            redis_cpu: (!redis_cpu.is_empty()).then(|| redis_cpu.iter().sum()),
            remarks,
        }
    }
}
