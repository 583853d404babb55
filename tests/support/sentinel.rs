//! A primary, a replica and three sentinels on loopback. The primary counts as down after a second.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::redis::{RedisServer, free_port, is_installed};

/// The name of the primary.
pub const MASTER: &str = "limits";

/// Longer than any start on a busy machine takes.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Servers and sentinels; killed when dropped.
pub struct SentinelSet {
    /// The primary, then the replica, as they were at the start.
    pub servers: [RedisServer; 2],
    sentinels: Vec<(u16, Child)>,
    _dir: tempfile::TempDir,
}

impl SentinelSet {
    /// Starts them, and waits until a failover is possible.
    pub fn start() -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let primary = RedisServer::on_port(free_port(), &["--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let replica = RedisServer::on_port(free_port(), &["--replicaof", "127.0.0.1", &port]);
        let dir = tempfile::tempdir().unwrap();
        let sentinels = (0..3).map(|index| {
            let own = free_port();
            let text = format!(
                "port {own}\n\
                 sentinel monitor {MASTER} 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds {MASTER} 1000\n\
                 sentinel failover-timeout {MASTER} 4000\n"
            );
            (own, spawn(dir.path(), &index.to_string(), &text))
        });
        let set = Self { servers: [primary, replica], sentinels: sentinels.collect(), _dir: dir };
        let late = Instant::now() + READY_WITHIN;
        while !(0..3).all(|index| set.is_ready(index)) {
            assert!(Instant::now() < late, "the sentinels are not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(set)
    }

    /// The setting `redis.nodes`.
    pub fn nodes(&self) -> String {
        let nodes = self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}"));
        nodes.collect::<Vec<_>>().join(",")
    }

    /// The port that a sentinel names, if it answers.
    pub fn named(&self, index: usize) -> Option<u16> {
        let answer: Option<(String, String)> =
            self.ask(index, &["GET-MASTER-ADDR-BY-NAME", MASTER]).ok()?;
        answer?.1.parse().ok()
    }

    /// True if it knows the replica and both other sentinels.
    fn is_ready(&self, index: usize) -> bool {
        let count = |what: &str| -> usize {
            let list = self.ask::<Vec<redis::Value>>(index, &[what, MASTER]);
            list.map_or(0, |list| list.len())
        };
        count("SENTINELS") == 2 && count("REPLICAS") == 1
    }

    fn ask<T: redis::FromRedisValue>(&self, index: usize, words: &[&str]) -> redis::RedisResult<T> {
        let url = format!("redis://127.0.0.1:{}", self.sentinels[index].0);
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd("SENTINEL").arg(words).query(&mut connection)
    }

    /// Kills all sentinels.
    pub fn stop_sentinels(&mut self) {
        for (_, sentinel) in &mut self.sentinels {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

/// Starts a sentinel with this configuration, which it keeps in `dir`.
pub fn spawn(dir: &Path, name: &str, text: &str) -> Child {
    let path = dir.join(format!("{name}.conf"));
    let own = format!("bind 127.0.0.1\ndir {}\nlogfile {name}.log\n", dir.display());
    fs::write(&path, own + text).unwrap();
    let mut command = Command::new("redis-server");
    let command = command.arg(&path).arg("--sentinel").stdout(Stdio::null());
    command.spawn().expect("a sentinel")
}

impl Drop for SentinelSet {
    fn drop(&mut self) {
        self.stop_sentinels();
    }
}
