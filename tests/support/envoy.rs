//! The real Envoy with the shipped configuration, as a process on free ports of loopback.
//!
//! Of deploy/envoy/envoy.yaml only this is changed: where Envoy listens, where the others of the stack turned out to
//! listen, and, unless [`Timeouts::Shipped`] is asked for, how long Envoy waits for tollgate.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::caller::Caller;
use super::wait::until;

const SHIPPED: &str = include_str!("../../deploy/envoy/envoy.yaml");

/// A running Envoy; killed when dropped.
pub struct Envoy {
    /// Where clients go.
    pub edge: SocketAddr,
    admin: Caller,
    access_log: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<Vec<String>>>,
    child: Child,
    _dir: TempDir,
}

/// How long Envoy waits for tollgate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeouts {
    /// 25 ms for an attempt, 50 ms for both. A machine that other work keeps busy stands still for longer than that
    /// now and then, and Envoy then lets the request pass.
    Shipped,
    /// [`ATTEMPT`] for an attempt, twice that for both: whoever is answered sooner than [`ATTEMPT`] was answered at
    /// the first attempt.
    Patient,
}

/// How long a patient Envoy waits for one tollgate before it asks the other.
pub const ATTEMPT: Duration = Duration::from_millis(500);

/// The installed Envoy. Without one: a failure where `CI` is set, else nothing and a line that says so.
pub fn installed() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/envoy");
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "Envoy is needed: run deploy/tools.sh");
    eprintln!("SKIPPED: Envoy is not installed; deploy/tools.sh installs it");
    None
}

/// The shipped file with these addresses and timeouts in it.
fn rewritten(
    tollgates: &[SocketAddr; 2],
    backends: &[SocketAddr; 3],
    timeouts: Timeouts,
    transport_socket: Option<&str>,
) -> String {
    let mut text = SHIPPED.to_owned();
    let mut substitute = |shipped: &str, used: &str| {
        assert_eq!(text.matches(shipped).count(), 1, "{shipped} in deploy/envoy/envoy.yaml");
        text = text.replace(shipped, used);
    };
    if timeouts == Timeouts::Patient {
        let attempt = ATTEMPT.as_secs_f64();
        substitute(" timeout: 0.05s\n", &format!(" timeout: {}s\n", 2.0 * attempt));
        substitute("max_interval: 0.025s }", &format!("max_interval: {attempt}s }}"));
    }
    if let Some(socket) = transport_socket {
        // A handshake takes longer than a bare connection, above all on a busy machine.
        substitute(" connect_timeout: 0.02s\n", " connect_timeout: 0.5s\n");
        let indented = socket.trim_end().replace('\n', "\n      ");
        let cluster = format!("    - name: ratelimit\n      {indented}\n");
        substitute("    - name: ratelimit\n", &cluster);
    }
    let mut replace = |shipped: String, used: SocketAddr| {
        substitute(&shipped, &format!("address: {}, port_value: {} }}", used.ip(), used.port()));
    };
    let shipped = |host: &str, port: u16| format!("address: {host}, port_value: {port} }}");
    // Envoy takes any free port and tells which.
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    replace(shipped("0.0.0.0", 10_000), any);
    replace(shipped("127.0.0.1", 9_901), any);
    for (port, used) in [8_081, 8_091].into_iter().zip(tollgates) {
        replace(shipped("127.0.0.1", port), *used);
    }
    for (port, used) in [9_001, 9_002, 9_003].into_iter().zip(backends) {
        replace(shipped("127.0.0.1", port), *used);
    }
    text
}

impl Envoy {
    /// Starts `program` in front of these and waits until it finds all of them healthy.
    pub async fn start(
        program: &Path,
        tollgates: &[SocketAddr; 2],
        backends: &[SocketAddr; 3],
        timeouts: Timeouts,
        transport_socket: Option<&str>,
    ) -> Self {
        let configuration = rewritten(tollgates, backends, timeouts, transport_socket);
        let envoy = Self::run(program, &configuration).await;
        envoy.until_healthy("backends", 3).await;
        envoy.until_healthy("ratelimit", 2).await;
        envoy
    }

    /// Starts `program` with this configuration and waits until it listens. Its first listener is the edge.
    pub async fn run(program: &Path, configuration: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("envoy.yaml");
        std::fs::write(&config, configuration).unwrap();
        let admin_address = dir.path().join("admin");
        let mut child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_address)
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"])
            .args(["--file-flush-interval-msec", "50"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let access_log = follow(child.stdout.take().unwrap());
        let said = follow(child.stderr.take().unwrap());
        let admin = until("Envoy names its admin address", async || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "Envoy ended: {ended:?}\n{}", said.lock().join("\n"));
            std::fs::read_to_string(&admin_address).ok()?.parse().ok()
        });
        let admin = Caller::of(admin.await);
        let edge = until("Envoy listens", async || edge(&admin).await).await;
        Self { edge, admin, access_log, said, child, _dir: dir }
    }

    /// Waits until so many members of the cluster are healthy in Envoy's eyes.
    pub async fn until_healthy(&self, cluster: &str, members: u64) {
        let name = format!("cluster.{cluster}.membership_healthy");
        let what = format!("{name} is {members}");
        until(&what, async || (self.stats().await[&name] == members).then_some(())).await;
    }

    /// Every counter and gauge by name.
    pub async fn stats(&self) -> BTreeMap<String, u64> {
        let text = self.admin.get("/stats").await.unwrap().text();
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }

    /// How many calls the member at `address` of the cluster ratelimit has answered without a gRPC error.
    pub async fn answered_by(&self, address: SocketAddr) -> u64 {
        let text = self.admin.get("/clusters").await.unwrap().text();
        let line = format!("ratelimit::{address}::rq_success::");
        text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
    }

    /// Waits for the line of the access log that fits.
    pub async fn logged(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until(what, async || {
            let lines = self.access_log.lock().clone();
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).find(|line| fits(line))
        })
        .await
    }

    /// Waits until so many requests of a client at this address are in the access log; their lines.
    pub async fn logged_of(&self, client: &str, requests: usize) -> Vec<Value> {
        until("the client's requests are in the log", async || {
            let lines = self.access_log.lock().clone();
            let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect(line));
            let found: Vec<Value> = lines.filter(|line| line["client"] == client).collect();
            (found.len() >= requests).then_some(found)
        })
        .await
    }

    /// As a crash: nothing is finished, connections are reset.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it wrote beside the access log: warnings and errors.
    pub fn said(&self) -> String {
        self.said.lock().join("\n")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the listener is, once there is one.
async fn edge(admin: &Caller) -> Option<SocketAddr> {
    let text = admin.get("/listeners?format=json").await.ok()?.text();
    let listeners: Value = serde_json::from_str(&text).ok()?;
    let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).unwrap();
    Some(SocketAddr::new(socket["address"].as_str()?.parse().unwrap(), port))
}

fn follow(output: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            seen.lock().push(line);
        }
    });
    lines
}
