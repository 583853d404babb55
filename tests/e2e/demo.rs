//! deploy/demo.sh, which is `make demo`: it starts, what it says to try works, and Ctrl-C ends all of it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;

use crate::stack::alone;
use crate::support::envoy;
use crate::support::grpc::{ask, with_hits};
use crate::support::redis;
use crate::support::tollgate::{Tollgate, request};
use crate::support::tools::{has_grpcurl, is_there, path};
use crate::support::wait::until;

const SCRIPT: &str = include_str!("../../deploy/demo.sh");
/// The gRPC listener of the tollgate that no operator talks to here.
const OTHER_TOLLGATE: &str = "127.0.0.1:8091";

/// The script; told to end when dropped, for it ends what it started.
pub struct Demo {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Demo {
    /// With this `store.deadline`: its Redis waits for the disk at each write, which may be busy.
    pub fn start(logs: &Path, arguments: &[&str], deadline: &str) -> Self {
        let binaries = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap();
        // A shell cannot trap what was ignored when it began, as in a test that runs in the background.
        let mut child = Command::new("env")
            .args(["--default-signal=INT", "deploy/demo.sh"])
            .args(arguments)
            .env("TOLLGATE__STORE__DEADLINE", deadline)
            .env("PROMETHEUS_INTERVAL", "1s")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("DEMO_BIN", binaries)
            .env("TMPDIR", logs)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (output, seen) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                seen.lock().push(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until it says what to try; what it said.
    pub async fn ready(&mut self) -> Vec<String> {
        let last = "Ctrl-C stops everything.";
        until("the demo says what to try", async || {
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.said().join("\n"));
            self.said().iter().any(|line| line == last).then_some(())
        })
        .await;
        self.said()
    }

    fn said(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// The processes that are its children now, by id and name.
    pub fn children(&self) -> BTreeSet<(u32, String)> {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let id = entry.unwrap().file_name().to_str()?.parse().ok()?;
            // id (name) state parent ..
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let parent: u32 = rest.split(' ').nth(1)?.parse().ok()?;
            (parent == self.child.id() && name != "sleep").then(|| (id, name.to_owned()))
        });
        processes.collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.interrupt();
            drop(self.child.wait());
        }
    }
}

/// The lines that limit a key at one tollgate and ask through Envoy do what the demo says they do.
async fn try_administration(said: &[String]) {
    if !has_grpcurl("administration of the demo") {
        return;
    }
    let at = |text: &str| said.iter().position(|line| line.contains(text)).unwrap();
    let (upsert, last, curl) = (at("  grpcurl "), at("ClientService/"), at("for i in 1 2 3 4; do"));
    let line = said[upsert..=last].join("\n");
    let stranger = line.replace("Bearer ", "Bearer not-");
    assert!(run(&format!("{stranger} 2>&1 || true")).contains("Code: Unauthenticated"));
    let answer = run(&line);
    assert!(answer.contains("etag"), "{answer}");
    let mut other =
        RateLimitServiceClient::new(Tollgate::channel(OTHER_TOLLGATE.parse().unwrap()).await);
    let peek = with_hits(request("edge", &[&[("api_key", "acme")]]), 0);
    until("the other tollgate follows", async || {
        let limit = ask(&mut other, peek.clone()).await.statuses[0].current_limit.clone();
        (limit?.requests_per_unit == 3).then_some(())
    })
    .await;
    assert_eq!(run(&said[curl]), "200 200 200 429 \n");
}

/// What a line prints that the demo says to try.
fn run(line: &str) -> String {
    let tried = Command::new("bash").args(["-c", line]).env("PATH", path()).output().unwrap();
    let printed = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(tried.status.success(), "{line}\n{printed}{}", String::from_utf8_lossy(&tried.stderr));
    printed
}

/// The ports of loopback that the script names.
fn ports() -> BTreeSet<u16> {
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse();
    SCRIPT.split("127.0.0.1:").skip(1).filter_map(|rest| digits(rest).ok()).collect()
}

/// Whether its tools are there; with CI set they have to be.
pub fn can_run() -> bool {
    envoy::installed().is_some() && redis::is_installed() && is_there("prometheus")
}

/// Whether something else listens where the demo would.
pub fn is_busy() -> bool {
    let taken = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_err();
    let busy: Vec<u16> = ports().into_iter().filter(taken).collect();
    if !busy.is_empty() {
        eprintln!("SKIPPED: the demo's ports {busy:?} are in use");
    }
    !busy.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_starts_works_and_ends_with_everything_it_started() {
    demo_works(&[], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_works_with_a_cluster() {
    demo_works(&["cluster"], 6).await;
}

/// With these arguments, of which it starts so many Redis servers.
async fn demo_works(arguments: &[&str], redis_servers: usize) {
    if !can_run() {
        return;
    }
    let _alone = alone().await;
    assert_eq!(ports().len(), 13, "{:?}", ports());
    if is_busy() {
        return;
    }
    let logs = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(logs.path(), arguments, "40ms");
    let said = demo.ready().await;
    let line = said.iter().find(|line| line.starts_with("  curl -i http://")).unwrap();
    let answer = run(line);
    assert!(answer.starts_with("HTTP/1.1 200"), "{line}\n{answer}");
    for header in ["x-instance: backend-", "x-ratelimit-remaining: "] {
        assert!(answer.contains(header), "{header} in\n{answer}");
    }

    try_administration(&said).await;

    let children = demo.children();
    assert_eq!(children.len(), redis_servers + 2 + 3 + 2, "{children:?}");
    demo.interrupt();
    until("the demo ends", async || {
        let status = demo.child.try_wait().unwrap()?;
        assert!(status.success(), "{status}");
        Some(())
    })
    .await;
    let left = children.iter().filter(|(id, _)| Path::new(&format!("/proc/{id}")).exists());
    assert_eq!(left.count(), 0, "{children:?}\n{}", demo.said().join("\n"));
    assert!(!demo.said().iter().any(|line| line.contains("killing")), "{:?}", demo.said());
}
