//! The real tollgate, as a process on free ports of loopback.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::{engines, http};

/// Longer than any start on a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The secrets of all tests: tokens, passwords, sensitive values. No tollgate of any test may write
/// one.
const SECRETS: [&str; 2] = ["hunter2", "s3cret"];

/// A part of those that `tests/doors` plants.
pub const PLANTED: &str = "hunter2-planted";

const POLICIES: &str = "policies.yaml";
const CONFIG: &str = "tollgate.yaml";

/// A running tollgate; killed when dropped.
pub struct Tollgate {
    child: Child,
    pub at: Addresses,
    log: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    pub http: SocketAddr,
    pub metrics: Option<SocketAddr>,
    pub status: Option<SocketAddr>,
    pub debug: Option<SocketAddr>,
}

/// How to start one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    policies: Option<PathBuf>,
    redis: Option<String>,
    set: Vec<String>,
    env: Vec<(String, String)>,
    policy_text: Option<String>,
    config_text: Option<String>,
    data: Option<PathBuf>,
    unheard: bool,
    ratelimit: bool,
    arguments: Vec<String>,
    engine: Option<String>,
}

impl Options {
    /// Serves these policies, from a file of the process' own: [`Tollgate::policies`].
    pub fn serving(text: &str) -> Self {
        Self { policy_text: Some(text.to_owned()), ..Self::default() }
    }

    /// With this settings file: [`Tollgate::config`].
    pub fn config(mut self, text: &str) -> Self {
        self.config_text = Some(text.to_owned());
        self
    }

    pub fn policies(mut self, path: impl AsRef<Path>) -> Self {
        self.policies = Some(path.as_ref().to_owned());
        self
    }

    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis = Some(url.into());
        self
    }

    /// Keeps what operators change in this directory, instead of one that ends with the process.
    pub fn data(mut self, path: impl AsRef<Path>) -> Self {
        self.data = Some(path.as_ref().to_owned());
        self
    }

    /// Nobody reads its log, which may be long.
    pub fn unheard(mut self) -> Self {
        self.unheard = true;
        self
    }

    /// Such as `store.on_failure=deny`.
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.set.push(setting.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Called as `ratelimit`, with no variables but those of [`Self::env`].
    pub fn called_ratelimit(mut self) -> Self {
        self.ratelimit = true;
        self
    }

    /// With one more argument.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// On this engine of HTTP/2, one of [`engines::ENGINES`]. By default: the one that
    /// `TOLLGATE_TEST_ENGINE` names, or that of tollgate.
    pub fn engine(mut self, name: &str) -> Self {
        self.engine = Some(name.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Tollgate {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready.json");
        let mut command = if self.ratelimit { ratelimit(dir.path()) } else { command() };
        for listener in ["grpc", "admin", "http"] {
            command.args(["--set", &format!("{listener}.listen=127.0.0.1:0")]);
        }
        if let Some(setting) =
            self.engine.or_else(engines::named).and_then(|e| engines::setting(&e))
        {
            command.args(["--set", &setting]);
        }
        let named = self.set.iter().chain(self.env.iter().map(|(_, value)| value));
        if self.ratelimit || named.into_iter().any(|text| text.ends_with("ratelimit")) {
            command.args(["--set", "debug.listen=127.0.0.1:0"]);
        }
        command.arg("--ready-file").arg(&ready).args(&self.arguments);
        let data = self.data.clone().unwrap_or_else(|| dir.path().join("data"));
        command.arg("--set").arg(format!("data_dir={}", data.display()));
        if let Some(text) = &self.config_text {
            fs::write(dir.path().join(CONFIG), text).unwrap();
            command.arg("--config").arg(dir.path().join(CONFIG));
        }
        if let Some(text) = &self.policy_text {
            fs::write(dir.path().join(POLICIES), text).unwrap();
            command.arg("--policies").arg(dir.path().join(POLICIES));
        }
        self.policies.iter().for_each(|path| _ = command.arg("--policies").arg(path));
        self.redis.iter().for_each(|url| _ = command.arg("--redis-url").arg(url));
        self.set.iter().for_each(|setting| _ = command.args(["--set", setting]));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let stderr = if self.unheard { Stdio::null() } else { Stdio::piped() };
        let mut child =
            command.stdout(Stdio::null()).stderr(stderr).spawn().expect("tollgate starts");
        let log = follow(&mut child);
        let deadline = Instant::now() + PATIENCE;
        let at = loop {
            if let Ok(text) = fs::read_to_string(&ready) {
                break serde_json::from_str(&text).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(50));
                panic!("tollgate ended with {status}:\n{}", log.lock().unwrap().join("\n"));
            }
            assert!(Instant::now() < deadline, "not ready:\n{}", log.lock().unwrap().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        };
        Tollgate { child, at, log, dir }
    }
}

/// The binary, with nothing of this process' environment that would change its settings.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TOLLGATE")) {
        command.env_remove(name);
    }
    command
}

/// The binary by the name `ratelimit`, in `dir`.
pub fn ratelimit(dir: &Path) -> Command {
    let program = dir.join("ratelimit");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tollgate"), &program).unwrap();
    let mut command = Command::new(program);
    command.env_clear();
    command
}

fn follow(child: &mut Child) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let Some(stderr) = child.stderr.take() else { return lines };
    let seen = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            seen.lock().unwrap().push(line);
        }
    });
    lines
}

impl Tollgate {
    /// A client on a connection of its own.
    pub async fn client(&self) -> RateLimitServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.at.grpc)).unwrap();
        RateLimitServiceClient::new(endpoint.connect().await.unwrap())
    }

    pub async fn channel(address: SocketAddr) -> Channel {
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A place for files that goes with the process.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file that [`Options::serving`] wrote.
    pub fn policies(&self) -> PathBuf {
        self.dir().join(POLICIES)
    }

    /// The file that [`Options::config`] wrote.
    pub fn config(&self) -> PathBuf {
        self.dir().join(CONFIG)
    }

    /// The value of a series of `/metrics`, such as `tollgate_requests_total{code="ok"}`; none: not there.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = http::get(self.at.http, "/metrics").body;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a series has at least this value.
    pub fn wait_for_metric(&self, series: &str, least: f64) {
        self.wait_for(series, || self.metric(series).is_some_and(|value| value >= least));
    }

    /// Waits until this holds.
    pub fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Log lines that tell of a fault of tollgate's own.
    pub fn errors(&self) -> Vec<String> {
        let bad = |line: &String| line.contains("panic") || line.contains("ERROR");
        self.log().into_iter().filter(bad).collect()
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "tollgate does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log line that contains `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            assert!(Instant::now() < deadline, "no {text:?} in\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Tollgate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let secret = |line: &String| SECRETS.iter().any(|secret| line.contains(secret));
        let told = self.log().into_iter().find(secret);
        assert!(told.is_none() || std::thread::panicking(), "a secret in the log: {told:?}");
    }
}

/// A request of one hit for each of these descriptors.
pub fn request(domain: &str, descriptors: &[&[(&str, &str)]]) -> pb::RateLimitRequest {
    pb::RateLimitRequest {
        domain: domain.to_owned().into(),
        descriptors: descriptors.iter().map(|entries| descriptor(entries)).collect(),
        hits_addend: 0,
    }
}

pub fn descriptor(entries: &[(&str, &str)]) -> pb::RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| entry(key.as_bytes(), value.as_bytes());
    pb::RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        ..pb::RateLimitDescriptor::default()
    }
}

pub fn entry(key: &[u8], value: &[u8]) -> pb::rate_limit_descriptor::Entry {
    pb::rate_limit_descriptor::Entry { key: key.to_vec().into(), value: value.to_vec().into() }
}
