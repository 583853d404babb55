//! Clients of other languages and stacks: gRPC for Go, for Python, for Node.js. Each is a program
//! of a page beside this file, which `deploy/tools.sh` builds or finds packages for.
//!
//! A program takes an address, a mode and a directory of encoded messages, and prints what it sees,
//! a line each. All of a mode are made on one connection:
//!
//! * `checks`: decisions, health, reflection, a call that is cancelled, one that meets its
//!   deadline, a message larger than a window, and 1000 calls at once.
//! * `drain`: 50 calls in flight while tollgate ends.
//! * `age`: calls for 1.5 s over connections that are closed for their age.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use prost::Message as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::POLICIES;
use crate::support::engines::ENGINES;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::tools;

const CHECKS: [&str; 10] = [
    "decide OK OK OVER_LIMIT",
    "health OK 1",
    "nobody NOT_FOUND",
    "unknown UNIMPLEMENTED",
    "cancel 1 CANCELLED",
    "deadline 1 DEADLINE_EXCEEDED",
    "reflection true",
    "large OK",
    "together 1000",
    "again OK",
];

/// A program: its name, and how to start it.
struct Program {
    name: &'static str,
    command: fn() -> Option<Command>,
}

const PROGRAMS: [Program; 3] = [
    Program { name: "go", command: go },
    Program { name: "python", command: python },
    Program { name: "node", command: node },
];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn go() -> Option<Command> {
    tools::has_of_go("wire-go", "gRPC for Go").then(|| Command::new(here(".tools/bin/wire-go")))
}

fn python() -> Option<Command> {
    let mut command = Command::new(tools::python()?);
    command.arg(here("tests/wire/python/client.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

fn node() -> Option<Command> {
    let packages = here(".tools/node/node_modules");
    let has_node = Command::new("node").arg("--version").output().is_ok();
    let needed = std::env::var_os("CI").is_some() && has_node;
    assert!(packages.exists() || !needed, "gRPC for Node.js is needed: run deploy/tools.sh");
    if !has_node || !packages.exists() {
        eprintln!("SKIPPED: gRPC for Node.js is not installed");
        return None;
    }
    let mut command = Command::new("node");
    command.arg(here("tests/wire/node/client.js")).env("NODE_PATH", packages);
    Some(command)
}

/// A program that runs; it ends with this.
struct Running {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(program: &Program, address: SocketAddr, mode: &str, dir: &Path) -> Option<Self> {
        let messages = dir.join(program.name);
        write_messages(&messages, program.name);
        let mut command = (program.command)()?;
        command.args([&address.to_string(), mode]).arg(messages);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { name: program.name, child, lines })
    }

    /// All of them against `tollgate`.
    fn all(tollgate: &Tollgate, mode: &str) -> Vec<Self> {
        let start = |program| Self::start(program, tollgate.at.grpc, mode, tollgate.dir());
        PROGRAMS.iter().filter_map(start).collect()
    }

    fn expect(&mut self, engine: &str, expected: &str) {
        let line = self.lines.next().map(Result::unwrap);
        assert_eq!(line.as_deref(), Some(expected), "{} on {engine}", self.name);
    }

    fn all_expect(programs: &mut [Self], engine: &str, expected: &str) {
        for program in programs {
            program.expect(engine, expected);
        }
    }

    /// Lets it go on.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The messages of a program, whose descriptors are its own.
fn write_messages(dir: &Path, name: &str) {
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let health = |service: &str| HealthCheckRequest { service: service.to_owned() };
    // More than the windows of a call and of its connection.
    let large = "v".repeat(600_000);
    fs::create_dir_all(dir).unwrap();
    for (file, message) in [
        ("two", request("d", &[&[("two", name)]]).encode_to_vec()),
        ("many", request("d", &[&[("many", name)]]).encode_to_vec()),
        ("large", request("d", &[&[("many", &large)]]).encode_to_vec()),
        ("health", health("").encode_to_vec()),
        ("nobody", health("nobody").encode_to_vec()),
        ("list", list.encode_to_vec()),
    ] {
        fs::write(dir.join(file), message).unwrap();
    }
}

pub fn options(engine: &str) -> Options {
    let options = Options::serving(POLICIES).engine(engine);
    options.set("bounds.message_bytes=1048576").set("bounds.value_bytes=1048576")
}

#[test]
fn programs_see_every_kind_of_call() {
    for engine in ENGINES {
        let tollgate = options(engine).start();
        for program in &mut Running::all(&tollgate, "checks") {
            for line in CHECKS {
                program.expect(engine, line);
            }
        }
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

#[test]
fn calls_of_programs_in_flight_are_answered_at_the_end() {
    for engine in ENGINES {
        let Some(redis) = RedisServer::start() else { return };
        let options = options(engine).redis(redis.url()).set("store.deadline=3s");
        let options = options.set("redis.response_timeout=30s").set("grpc.drain_delay=1500ms");
        let mut tollgate = options.start();
        let mut programs = Running::all(&tollgate, "drain");
        Running::all_expect(&mut programs, engine, "first OK");
        // Redis keeps them waiting until after the listeners have closed.
        redis.pause();
        programs.iter_mut().for_each(Running::go_on);
        Running::all_expect(&mut programs, engine, "sent");
        tollgate.signal("TERM");
        Running::all_expect(&mut programs, engine, "answered 50");
        redis.resume();
        assert_eq!(tollgate.wait().code(), Some(0), "{engine}");
    }
}

#[test]
fn programs_see_no_failed_call_when_connections_are_old() {
    for engine in ENGINES {
        let tollgate = options(engine).set("grpc.max_connection_age=300ms").start();
        let mut programs = Running::all(&tollgate, "age");
        Running::all_expect(&mut programs, engine, "failed 0");
        let opened = tollgate.metric("tollgate_connections_total").unwrap();
        assert!(opened >= 3.0 * programs.len() as f64, "{engine}: {opened} connections");
    }
}
