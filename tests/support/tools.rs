//! Programs that tests run and cargo does not build: where they are, and what it means that one is missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tollgate::command;

/// The installed tools and the tollgate under test, before everything else.
pub fn path() -> String {
    let tollgate = command().get_program().to_owned();
    let tollgate = Path::new(&tollgate).parent().unwrap().to_owned();
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let found = env::var_os("PATH").unwrap_or_default();
    let dirs = [installed, tollgate].into_iter().chain(env::split_paths(&found));
    env::join_paths(dirs).unwrap().into_string().unwrap()
}

/// Whether this tool is there, which `deploy/tools.sh` installs. In CI it has to be.
pub fn is_there(tool: &str) -> bool {
    let found = env::split_paths(&path()).any(|dir| dir.join(tool).is_file());
    assert!(found || env::var_os("CI").is_none(), "{tool} is needed: run deploy/tools.sh");
    if !found {
        eprintln!("SKIPPED: {tool} is not installed; deploy/tools.sh installs it");
    }
    found
}

/// Where Go is, `deploy/tools.sh` installs grpcurl, so that it is missing is a failure in CI. Elsewhere it is none, and a
/// line that `what` is skipped.
pub fn has_grpcurl(what: &str) -> bool {
    has_of_go("grpcurl", what)
}

/// The same of another tool that `deploy/tools.sh` builds with Go.
pub fn has_of_go(tool: &str, what: &str) -> bool {
    let found = |tool: &str| env::split_paths(&path()).any(|dir| dir.join(tool).is_file());
    let needed = env::var_os("CI").is_some() && found("go");
    assert!(found(tool) || !needed, "{tool} is not installed; deploy/tools.sh does that");
    if !found(tool) {
        eprintln!("SKIPPED: {what}: {tool} is not installed");
    }
    found(tool)
}

/// The Python in which `deploy/tools.sh` installs what the snippet needs. Without it: a failure where `CI` is set, else
/// nothing and a line that says so.
pub fn python() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/python/bin/python");
    if path.exists() {
        return Some(path);
    }
    assert!(env::var_os("CI").is_none(), "Python with grpcio is needed: run deploy/tools.sh");
    eprintln!("SKIPPED: Python with grpcio is not installed; deploy/tools.sh installs it");
    None
}

/// The environment of a process whose wall clock is wrong by `offset`, such as `+5y`; its monotonic
/// clock is not. Without faketime, which `deploy/tools.sh` installs: a failure where `CI` is set,
/// else nothing and a line that says so.
pub fn wrong_clock(offset: &str) -> Option<[(&'static str, &str); 3]> {
    let clock = [
        // The loader replaces the $LIB.
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1"),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let year = |environment: &[(&str, &str)]| {
        let date = Command::new("date").arg("+%Y").envs(environment.iter().copied()).output();
        date.unwrap().stdout
    };
    if year(&clock) != year(&[]) {
        return Some(clock);
    }
    assert!(env::var_os("CI").is_none(), "faketime is needed: run deploy/tools.sh");
    eprintln!("SKIPPED: faketime is not installed; deploy/tools.sh installs it");
    None
}
