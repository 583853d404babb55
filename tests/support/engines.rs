//! The HTTP/2 engines of the gRPC listener: those that tests run on, and the tests that run once
//! for each.
//!
//! tests/wire starts a tollgate for each of [`ENGINES`] by itself ([`Options::engine`]). Other test
//! binaries run on the default engine, or on the one that [`VARIABLE`] names; those of [`AGAIN`]
//! start themselves once more for each other engine, so that plain `cargo test` has it all.
//!
//! [`Options::engine`]: super::tollgate::Options::engine

use std::env;
use std::process::Command;

use tollgate::config::Key;

/// The engines, as `grpc.engine` names them.
pub const ENGINES: &[&str] = &["hyper", "lean"];

/// Such as `TOLLGATE_TEST_ENGINE=hyper cargo test --test attacks`.
pub const VARIABLE: &str = "TOLLGATE_TEST_ENGINE";

/// The setting that chooses.
const SETTING: &str = "grpc.engine";

/// The tests of other binaries that depend on the engine, by binary and module. All else in them is
/// about HTTP/1, TLS, the admin listener, or what lies behind a call.
const AGAIN: &[(&str, &[&str])] = &[
    (
        "attacks",
        &["floods::", "frames::", "headers::", "idle::", "messages::", "readers::", "resets::"],
    ),
    ("doors", &["callers::", "served::decisions"]),
    (
        "e2e",
        &[
            "holds::calls_that_envoy_gives_up",
            "holds::request_whose_client_leaves",
            "limits::each_remote_address",
            "limits::keys_that_are_not_text",
            "mutual::",
        ],
    ),
    // One of `bounds` is about time, for which the machine must be its own; `attacks` has the same.
    (
        "service",
        &[
            "bounds::connections",
            "bounds::message",
            "bounds::silent",
            "bounds::sixty",
            "edge::",
            "hostile::",
            "traces::",
        ],
    ),
];

/// A part of the name of the test that calls [`run_again`], in each binary.
const THIS: &str = "on_every_other_engine";

/// The engine that [`VARIABLE`] names.
pub fn named() -> Option<String> {
    env::var(VARIABLE).ok().filter(|name| !name.is_empty())
}

/// The argument of tollgate that chooses this engine; none where there is no choice.
pub fn setting(engine: &str) -> Option<String> {
    assert!(ENGINES.contains(&engine), "{VARIABLE}: {engine} is none of {ENGINES:?}");
    Key::find(SETTING).map(|_| format!("{SETTING}={engine}"))
}

/// The engine of a tollgate with the default settings.
fn default() -> &'static str {
    Key::find(SETTING).map_or(ENGINES[0], |key| key.default)
}

/// Runs the tests of `binary`, which is the caller, for each engine but the default.
pub fn run_again(binary: &str) {
    if named().is_some() {
        return;
    }
    let (_, modules) = AGAIN.iter().find(|(name, _)| *name == binary).expect("a row of AGAIN");
    for module in *modules {
        assert!(run(&[module, "--list"], None).contains(": test"), "no test {module}");
    }
    for engine in ENGINES.iter().filter(|engine| **engine != default()) {
        println!("{engine}:\n{}", run(modules, Some(engine)));
    }
}

/// The output of this binary for these arguments.
fn run(arguments: &[&str], engine: Option<&str>) -> String {
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(arguments).args(["--skip", THIS]);
    again.envs(engine.map(|engine| (VARIABLE, engine)));
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{engine:?}\n{said}\n{errors}");
    said
}
