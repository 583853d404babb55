//! The snippets of deploy/snippets against the real tollgate: they decide, pay afterwards, and pass when nobody answers.
//!
//! The one in Go is not here: it needs Go and modules that nothing else here needs.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::redis::free_port;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::tools::python;

#[path = "../../deploy/snippets/ask.rs"]
#[allow(dead_code, reason = "`main` is that of the example")]
mod ask;

const PYTHON: &str = include_str!("../../deploy/snippets/ask.py");

/// Longer than a busy machine takes; the shipped deadline is for what users notice.
const PATIENT: Duration = Duration::from_secs(30);

fn tollgate() -> Options {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/snippets/policy.yaml");
    Options::default().policies(policies)
}

/// One that says nothing beyond the statuses.
fn terse() -> Tollgate {
    tollgate().set("response.dynamic_metadata=false").start()
}

/// Two requests pass; the work of both costs more than the budget, so that then nothing is left.
fn assert_decided(runs: &[[String; 2]; 3]) {
    for run in &runs[..2] {
        assert_eq!(run, &["request: passes", "work: passes, cost 80"]);
    }
    let [request, work] = &runs[2];
    assert!((3_000.0..3_600.1).contains(&wait(request, "request")), "{request}");
    // 60 tokens in debt, of which 100 come back in an hour, and one more to go on.
    assert!((1_700.0..2_196.1).contains(&wait(work, "work")), "{work}");
}

/// The seconds after which to come back.
fn wait(line: &str, what: &str) -> f64 {
    let wait = line.strip_prefix(&format!("{what}: denied, retry after "));
    wait.and_then(|wait| wait.strip_suffix(" s")).expect(line).parse().unwrap()
}

/// Who lets pass what nobody decided goes on at once.
fn assert_undecided(run: &[String; 2]) {
    assert_eq!(run, &["request: passes, undecided", "work: passes, undecided, cost 80"]);
}

/// Where nobody listens, and where somebody listens who never answers.
fn nobody() -> (SocketAddr, TcpListener) {
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    (closed, TcpListener::bind("127.0.0.1:0").unwrap())
}

#[tokio::test]
async fn rust_decides_settles_and_passes_when_nobody_answers() {
    let tollgate = tollgate().start();
    let limiter = ask::Limiter::new(format!("http://{}", tollgate.at.grpc), PATIENT).unwrap();
    let runs = [
        ask::serve(&limiter, "acme").await,
        ask::serve(&limiter, "acme").await,
        ask::serve(&limiter, "acme").await,
    ];
    assert_decided(&runs);
    let (closed, silent) = nobody();
    for address in [closed, silent.local_addr().unwrap()] {
        let deadline = Duration::from_millis(50);
        let limiter = ask::Limiter::new(format!("http://{address}"), deadline).unwrap();
        assert_undecided(&ask::serve(&limiter, "acme").await);
    }
}

#[tokio::test]
async fn rust_reads_whole_seconds_where_there_is_no_metadata() {
    let tollgate = terse();
    let limiter = ask::Limiter::new(format!("http://{}", tollgate.at.grpc), PATIENT).unwrap();
    for _ in 0..2 {
        ask::serve(&limiter, "acme").await;
    }
    let [request, _] = ask::serve(&limiter, "acme").await;
    assert!(wait(&request, "request") > 3_000.0 && request.ends_with(".000 s"), "{request}");
}

#[test]
fn python_decides_settles_and_passes_when_nobody_answers() {
    let Some(snippet) = Python::prepare() else { return };
    let tollgate = tollgate().start();
    let patient = format!(" {}", PATIENT.as_secs());
    let runs_at = |tollgate: &Tollgate| [(); 3].map(|()| snippet.run(tollgate.at.grpc, &patient));
    assert_decided(&runs_at(&tollgate));
    let [_, _, [request, _]] = runs_at(&terse());
    assert!(wait(&request, "request") > 3_000.0 && request.ends_with(".000 s"), "{request}");
    let (closed, silent) = nobody();
    for address in [closed, silent.local_addr().unwrap()] {
        assert_undecided(&snippet.run(address, ""));
    }
    assert_eq!(snippet.run(narrow().at.grpc, &patient), DENIED);
}

/// Every message is too large to be read: the answer has no statuses.
fn narrow() -> Tollgate {
    tollgate().set("bounds.message_bytes=16").start()
}

/// No wait helps a message that is too large.
const DENIED: [&str; 2] = ["request: denied", "work: denied"];

#[tokio::test]
async fn rust_reads_an_answer_without_statuses() {
    let tollgate = narrow();
    let limiter = ask::Limiter::new(format!("http://{}", tollgate.at.grpc), PATIENT).unwrap();
    assert_eq!(ask::serve(&limiter, "acme").await, DENIED);
}

/// The Python snippet, run by the commands that it names.
struct Python {
    path: String,
    dir: TempDir,
    run: String,
}

impl Python {
    /// With its messages generated, in a directory that looks like the repository.
    fn prepare() -> Option<Self> {
        let bin = python()?.parent().map(PathBuf::from).unwrap();
        let found = std::env::var("PATH").unwrap_or_default();
        let dir = tempfile::tempdir().unwrap();
        for name in ["proto", "deploy"] {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            symlink(root.join(name), dir.path().join(name)).unwrap();
        }
        let commands: Vec<_> =
            PYTHON.lines().filter_map(|line| line.strip_prefix("    ")).take(3).collect();
        let [serve, generate, run] = commands[..] else { panic!("{commands:?}") };
        assert_eq!(serve, "tollgate --policies deploy/snippets/policy.yaml");
        let path = format!("{}:{found}", bin.display());
        let snippet = Self { path, dir, run: run.to_owned() };
        snippet.bash(generate);
        assert!(fs::exists(snippet.dir.path().join("gen/envoy")).unwrap());
        Some(snippet)
    }

    fn run(&self, address: SocketAddr, more: &str) -> [String; 2] {
        assert_eq!(self.run.matches("127.0.0.1:8081").count(), 1, "{}", self.run);
        let command = self.run.replace("127.0.0.1:8081", &address.to_string());
        let printed = self.bash(&format!("{command}{more}"));
        let lines: Vec<_> = printed.lines().map(ToOwned::to_owned).collect();
        lines.try_into().expect("two lines")
    }

    /// What the command prints.
    fn bash(&self, command: &str) -> String {
        let mut bash = Command::new("bash");
        bash.args(["-c", command]).env("PATH", &self.path).current_dir(self.dir.path());
        // Else it would write beside the snippet.
        let output = bash.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }
}
