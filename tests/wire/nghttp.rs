//! The clients of nghttp2: `nghttp` for single calls with padding, trailers and small windows,
//! `h2load` for many at once.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::POLICIES;
use crate::corners::message;
use crate::support::engines::ENGINES;
use crate::support::grpc::SHOULD_RATE_LIMIT;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::tools::is_there;

/// Runs a client with `arguments`, whose request is a good call.
fn run(tollgate: &Tollgate, program: &str, arguments: &[&str]) -> String {
    let file: PathBuf = tollgate.dir().join("message");
    fs::write(&file, message()).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg("-d").arg(file);
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    command.arg(format!("http://{}{SHOULD_RATE_LIMIT}", tollgate.at.grpc));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}{errors}");
    said
}

#[test]
fn nghttp_is_answered_in_every_manner() {
    if !is_there("nghttp") {
        return;
    }
    for engine in ENGINES {
        let tollgate = Options::serving(POLICIES).engine(engine).start();
        for (manner, calls) in [
            (&["--padding=255"][..], 1),
            (&["--trailer=x: y"], 1),
            (&["--window-bits=1"], 1),
            (&["--header-table-size=0"], 1),
            (&["--header-table-size=0", "--encoder-header-table-size=0"], 1),
            (&["--no-dep"], 1),
            (&["--multiply=100", "--padding=7"], 100),
            (&["--multiply=100", "--connection-window-bits=16", "--window-bits=2"], 100),
        ] {
            let said = run(&tollgate, "nghttp", &[&["-v", "-n"], manner].concat());
            let answered = said.matches("grpc-status: 0").count();
            assert_eq!(answered, calls, "{engine}: {manner:?}\n{said}");
        }
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

#[test]
fn h2load_has_an_answer_to_each_call() {
    if !is_there("h2load") {
        return;
    }
    for engine in ENGINES {
        let tollgate = Options::serving(POLICIES).engine(engine).start();
        let mut expected = 0.0;
        for manner in [
            &["-c", "10", "-m", "1"][..],
            &["-c", "4", "-m", "500"],
            &["-c", "2", "-m", "50", "-w", "3"],
        ] {
            let said = run(&tollgate, "h2load", &[&["-n", "2000"], manner].concat());
            assert!(said.contains("2000 succeeded, 0 failed, 0 errored"), "{engine}: {said}");
            assert!(said.contains("status codes: 2000 2xx"), "{engine}: {said}");
            expected += 2_000.0;
            let decided = tollgate.metric("tollgate_requests_total{code=\"ok\"}");
            assert_eq!(decided, Some(expected), "{engine}: {manner:?}");
        }
    }
}
