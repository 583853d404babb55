//! Where the figures were measured: the machine, the versions, the command.

use std::fs;
use std::process::Command;
use std::thread;

/// Why the table cannot be measured here.
pub fn missing() -> Option<&'static str> {
    if cores() < 2 {
        return Some("two cores are needed, one for the server and one for its callers");
    }
    let tools = [
        ("taskset", "taskset is needed; it comes with util-linux"),
        ("redis-server", "redis-server is needed; run make tools"),
    ];
    let lacks = |tool: &str| first_line(tool, &["--version"]).is_none();
    tools.into_iter().find(|(tool, _)| lacks(tool)).map(|(_, needed)| needed)
}

/// How many processes wanted a core in the last minute. What others do makes both sides of a ratio slower, not alike.
pub fn load_average() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Some lines of Markdown; `load` is the load average before the first measurement.
pub fn heading(load: &str) -> String {
    let command: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let said = |tool: &str, args: &[&str]| first_line(tool, args).unwrap_or_else(|| "-".to_owned());
    format!(
        "* Command: `make bench{}`\n* Machine: {}, {} cores, Linux {}; load average before: {load}\n\
         * Versions: {}; {}; {}; built with {}\n",
        if command.is_empty() { String::new() } else { format!(" ARGS=\"{}\"", command.join(" ")) },
        model(),
        cores(),
        said("uname", &["-r"]),
        said(env!("CARGO_BIN_EXE_tollgate"), &["--version"]),
        redis(&said("redis-server", &["--version"])),
        tonic(),
        said("rustc", &["--version"]),
    )
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned()
}

/// `Redis server v=7.0.15 sha=...` -> `Redis 7.0.15`.
fn redis(said: &str) -> String {
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    format!("Redis {}", version.unwrap_or("?"))
}

/// The version that Cargo.lock names.
fn tonic() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let after = lock.split("name = \"tonic\"\nversion = \"").nth(1);
    let version = after.and_then(|rest| rest.split('"').next());
    format!("tonic {}", version.unwrap_or("?"))
}

fn first_line(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}
