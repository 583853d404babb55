//! The calls by which deploy/pgo.sh builds. The builds themselves take minutes, and are not made here.

use std::path::Path;
use std::process::{Command, Output};

fn train(binary: &Path) -> Output {
    let mut command = Command::new("deploy/pgo.sh");
    command.arg("train").arg(binary).env("PGO_DURATION", "100ms");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

#[test]
fn calls_of_the_profile_are_answered_from_memory_and_from_redis() {
    let output = train(Path::new(env!("CARGO_BIN_EXE_tollgate")));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for store in ["memory", "Redis"] {
        assert!(said.contains(&format!("pgo: calls answered from {store}")), "{said}");
    }
    assert!(!said.contains("SKIPPED"), "{said}");
}

#[test]
fn no_profile_is_made_of_a_binary_that_does_not_serve() {
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("ends");
    std::os::unix::fs::symlink("/bin/true", &binary).unwrap();
    assert!(!train(&binary).status.success());
}
