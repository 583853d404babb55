//! A real Redis for tests: one process on a free port of the loopback, nothing kept on disk unless its arguments say so.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "shared by test binaries that use a part each; what is not as expected shall panic"
)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const READY_WITHIN: Duration = Duration::from_secs(10);
const LOG: &str = "redis.log";

/// A running `redis-server`; dropped, it is killed.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    args: Vec<String>,
    directory: tempfile::TempDir,
    process: Option<Child>,
}

impl RedisServer {
    /// A server with default settings. Without `redis-server` on the path: a failure where `CI` is set, else
    /// nothing and a line that says so.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// A server with further arguments.
    pub fn start_with(args: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        Some(Self::on_port(free_port(), args))
    }

    /// A server on this port, for one that must come up where nobody answered before.
    pub fn on_port(port: u16, args: &[&str]) -> Self {
        let mut server = Self {
            port,
            args: args.iter().map(ToString::to_string).collect(),
            directory: tempfile::tempdir().expect("a directory for redis-server"),
            process: None,
        };
        server.restart();
        server
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without user or password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running redis-server").id()
    }

    /// A connection of the test's own, as the default user.
    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_connection().expect("a connection")
    }

    /// The present values of `keys`, for [`Self::restore`].
    pub fn dump(&self, keys: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut connection = self.connection();
        let mut value = |key: &&str| {
            let value = redis::cmd("DUMP").arg(*key).query(&mut connection).expect("a value");
            ((*key).to_owned(), value)
        };
        keys.iter().map(&mut value).collect()
    }

    /// Turns keys back to what they were, as a failover to a lagging replica or a restored backup
    /// does.
    pub fn restore(&self, dump: &[(String, Vec<u8>)]) {
        // In one transaction: nobody sees a part of it.
        let mut restored = redis::pipe();
        restored.atomic();
        for (key, value) in dump {
            restored.cmd("RESTORE").arg(key).arg(0).arg(value).arg("REPLACE").ignore();
        }
        restored.exec(&mut self.connection()).expect("to restore");
    }

    /// Kills it; what it was not told to keep is gone.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("to kill redis-server");
            process.wait().expect("redis-server to end");
        }
    }

    /// Kills it and starts it again on the same port, with what it kept on disk: nothing, if its arguments do not say so.
    pub fn restart(&mut self) {
        self.stop();
        // The log is this process' own word that it serves the port; an answer may be a stranger's.
        drop(std::fs::remove_file(self.log()));
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.directory.path())
            .arg("--logfile")
            .arg(self.log())
            .args(&self.args)
            .spawn()
            .expect("to start redis-server");
        let process = self.process.insert(process);
        let late = Instant::now() + READY_WITHIN;
        loop {
            let ended = process.try_wait().expect("the state of redis-server").is_some();
            let log = std::fs::read_to_string(self.directory.path().join(LOG)).unwrap_or_default();
            if log.contains("Ready to accept connections") {
                return;
            }
            assert!(!ended && Instant::now() < late, "redis-server does not start: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it and starts it again on the same port, without what it kept on disk.
    pub fn restart_empty(&mut self) {
        self.stop();
        self.directory = tempfile::tempdir().expect("a directory for redis-server");
        self.restart();
    }

    /// Lets its data exceed its memory: it refuses every write, and evicts nothing.
    pub fn fill(&self) {
        self.run("CONFIG", &["SET", "maxmemory", "1"]);
    }

    /// Ends [`Self::fill`].
    pub fn make_room(&self) {
        self.run("CONFIG", &["SET", "maxmemory", "0"]);
    }

    /// Makes it a replica of a primary that is not there: read-only, with its data.
    pub fn demote(&self) {
        self.run("REPLICAOF", &["127.0.0.1", "1"]);
    }

    /// Makes it a primary again, with its data.
    pub fn promote(&self) {
        self.run("REPLICAOF", &["NO", "ONE"]);
    }

    fn run(&self, command: &str, arguments: &[&str]) {
        let done = redis::cmd(command).arg(arguments).exec(&mut self.connection());
        done.expect("redis-server to do it");
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join(LOG)
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("a running redis-server");
        let status = Command::new("kill").args(["-s", name, &process.id().to_string()]).status();
        assert!(status.expect("kill").success(), "signal {name}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether there is a `redis-server` on the path. Where `CI` is set it must be there, else a line says that it is not.
pub fn is_installed() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        assert!(std::env::var_os("CI").is_none(), "redis-server is needed and not installed");
        eprintln!("SKIPPED: redis-server is not installed");
    }
    found.is_ok()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A port that was free a moment ago, and that no outgoing connection takes while its server is
/// away: below the range that Linux gives to those.
pub fn lasting_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).find(is_free).expect("a free port")
}
