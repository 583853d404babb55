//! What is measured, as processes: started, pinned, and killed when dropped.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::store::{Store, StoreKind};
use crate::support::certs::{Authority, Pair};
use crate::support::redis::free_port;
use crate::support::tollgate::{Options, Tollgate, command};

/// The core of the server that is measured, when it is pinned.
pub const SERVER_CORE: usize = 0;
/// The core of everything else then: callers and Redis.
pub const OTHER_CORE: usize = 1;

pub const DOMAIN: &str = "bench";
pub const KEY: &str = "client";
/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server to start.
#[derive(Clone, Debug)]
pub enum Server {
    Bare(Ceiling),
    Tollgate(Gate),
}

/// The library under a server that answers OK and decides nothing.
#[derive(Clone, Copy, Debug)]
pub enum Ceiling {
    Tonic,
    Hyper,
    H2,
}

impl Ceiling {
    /// The first argument of the example `bare`.
    const fn argument(self) -> &'static str {
        match self {
            Self::Tonic => "tonic",
            Self::Hyper => "hyper",
            Self::H2 => "h2",
        }
    }
}

/// The HTTP/2 of the gRPC listener.
#[derive(Clone, Copy, Debug)]
pub enum Engine {
    Hyper,
    Lean,
}

impl Engine {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hyper => "hyper",
            Self::Lean => "lean",
        }
    }

    const fn setting(self) -> &'static str {
        match self {
            Self::Hyper => "grpc.engine=hyper",
            Self::Lean => "grpc.engine=lean",
        }
    }
}

/// How a tollgate is set up.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The limit of every client, as YAML.
    pub limit: &'static str,
    pub store: StoreKind,
    /// The gRPC listener has TLS.
    tls: bool,
    /// Settings that differ from the defaults.
    set: Vec<&'static str>,
}

impl Gate {
    /// With this limit in memory.
    pub const fn memory(limit: &'static str) -> Self {
        Self { limit, store: StoreKind::Memory, tls: false, set: Vec::new() }
    }

    /// With this limit in Redis.
    pub const fn redis(limit: &'static str) -> Self {
        Self { limit, store: StoreKind::Standalone, tls: false, set: Vec::new() }
    }

    /// The same, every decision by Redis: callers that leave no core idle would soon meet the deadline of 10 ms, and what
    /// is decided without Redis costs less.
    pub fn exact(limit: &'static str) -> Self {
        Self::redis(limit).set(&["store.deadline=1s"])
    }

    /// With its counters there instead.
    pub const fn on(mut self, store: StoreKind) -> Self {
        self.store = store;
        self
    }

    /// With TLS on the gRPC listener.
    pub const fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With its gRPC listener on this engine.
    pub fn by(self, engine: Engine) -> Self {
        self.set(&[engine.setting()])
    }

    /// With these settings besides.
    pub fn set(mut self, settings: &[&'static str]) -> Self {
        self.set.extend(settings);
        self
    }

    /// Why the binary cannot be set up like this.
    pub fn refusal(&self) -> Option<String> {
        let mut settings = command();
        settings.arg("print-config");
        self.set.iter().for_each(|setting| _ = settings.args(["--set", setting]));
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), self.policies()).unwrap();
        let mut check = command();
        check.arg("check").arg(file.path());
        let path = file.path().display().to_string();
        refusal(settings).or_else(|| refusal(check)).map(|said| said.replace(&path, "policy"))
    }

    fn policies(&self) -> String {
        let limit = self.limit;
        format!("domain: {DOMAIN}\ndescriptors:\n  - key: {KEY}\n    rate_limit: {limit}\n")
    }

    /// Started with this store, which is of its kind, and these settings besides.
    pub fn start(&self, store: &Store, also: &[&str]) -> Tollgate {
        let options = Options::serving(&self.policies()).set("log.level=error");
        let options = store.settings().into_iter().fold(options, Options::set);
        self.set.iter().chain(also).fold(options, |options, setting| options.set(*setting)).start()
    }

    /// The same, with certificates if it has TLS.
    fn run(&self, store: &Store, also: &[&str]) -> Running {
        if !self.tls {
            return Running::Tollgate(Box::new(self.start(store, also)), None);
        }
        let certificates = Certificates::new();
        let Pair { cert, key } = &certificates.pair;
        let (cert, key) = (cert.display(), key.display());
        let files = [format!("grpc.tls.cert_file={cert}"), format!("grpc.tls.key_file={key}")];
        let also: Vec<&str> =
            also.iter().copied().chain(files.iter().map(String::as_str)).collect();
        Running::Tollgate(Box::new(self.start(store, &also)), Some(certificates))
    }
}

fn refusal(mut command: Command) -> Option<String> {
    let output = command.output().unwrap();
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().find(|line| line.contains("unknown")).or(said.lines().next());
    (!output.status.success()).then(|| first.unwrap_or("refused").trim().to_owned())
}

/// A server that answers.
pub enum Running {
    Bare(Bare),
    Tollgate(Box<Tollgate>, Option<Certificates>),
}

/// What a listener with TLS and its callers need.
pub struct Certificates {
    dir: TempDir,
    pair: Pair,
}

impl Certificates {
    fn new() -> Self {
        let (authority, dir) = (Authority::new("bench"), tempfile::tempdir().unwrap());
        authority.file(dir.path().join("ca.crt"));
        let pair = authority.issue(dir.path(), "server", &["127.0.0.1"]);
        Self { dir, pair }
    }
}

impl Server {
    /// Starts it; pinned to its core or free.
    pub fn start(&self, store: &Store, pinned: bool) -> Running {
        let running = match self {
            Self::Bare(ceiling) => Running::Bare(Bare::start(*ceiling, pinned)),
            Self::Tollgate(gate) => {
                let also: &[&str] = if pinned { &["grpc.cores=1"] } else { &[] };
                gate.run(store, also)
            }
        };
        if pinned {
            pin(running.pid(), SERVER_CORE);
        }
        running
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        match self {
            Self::Bare(bare) => bare.child.id(),
            Self::Tollgate(tollgate, _) => tollgate.pid(),
        }
    }

    /// The arguments that lead callers to it.
    pub fn target(&self) -> Vec<String> {
        match self {
            Self::Bare(bare) => vec![format!("http://{}", bare.address)],
            Self::Tollgate(tollgate, None) => vec![format!("http://{}", tollgate.at.grpc)],
            Self::Tollgate(tollgate, Some(certificates)) => {
                let ca = certificates.dir.path().join("ca.crt").display().to_string();
                vec![format!("https://{}", tollgate.at.grpc), "--ca-file".to_owned(), ca]
            }
        }
    }

    /// How many limits were decided without the store so far.
    pub fn degraded(&self) -> f64 {
        let Self::Tollgate(tollgate, _) = self else { return 0.0 };
        let answers = ["local_allow", "local_deny", "allow", "deny"];
        let series = answers.map(|a| format!("tollgate_degraded_claims_total{{answer=\"{a}\"}}"));
        series.iter().filter_map(|series| tollgate.metric(series)).sum()
    }
}

/// A ceiling, the example `bare`; killed when dropped.
pub struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(ceiling: Ceiling, pinned: bool) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let cores = if pinned { 1 } else { std::thread::available_parallelism().unwrap().get() };
        let mut command = Command::new(beside("examples/bare"));
        command.args([ceiling.argument(), &address.to_string(), &cores.to_string()]);
        let child = command.spawn().expect("the example bare; make bench builds it");
        let late = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < late, "bare {ceiling:?} does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, address }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Something that was built into the same directory as tollgate.
fn beside(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap().join(name)
}

/// Moves all threads of a process to a core; those that it starts later follow.
pub fn pin(pid: u32, core: usize) {
    let (core, pid) = (core.to_string(), pid.to_string());
    let output = Command::new("taskset").args(["-a", "-c", "-p", &core, &pid]).output();
    assert!(output.unwrap().status.success(), "taskset {pid}");
}
