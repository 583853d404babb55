//! The image: deploy/image.py packs the binary of this build, its programs run as an engine would
//! start them, and the Dockerfile makes the same image.
//!
//! The static binary is the release's: deploy/release.sh runs the same smoke test on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::files::{compose, read, text};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn programs_of_the_image_serve_as_nobody_on_a_read_only_root() {
    if !has_bwrap() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    pack(Path::new(BINARY), &libraries(), &archive);
    let output = image(&["smoke", archive.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout);
    for program in ["/bin/tollgate", "/bin/ratelimit"] {
        assert!(said.contains(&format!("{program} as 65534:65534: /healthcheck OK")), "{said}");
    }
}

#[test]
fn smoke_test_fails_for_an_image_that_does_not_start() {
    if !has_bwrap() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let program = directory.path().join("broken");
    fs::write(&program, "no program").unwrap();
    pack(&program, &[], &archive);
    let output = run(&["smoke", archive.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("image: "), "{output:?}");
}

#[test]
fn the_same_input_gives_the_same_archive() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let program = directory.path().join("program");
    fs::write(&program, "any").unwrap();
    pack(&program, &[], &first);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o600)).unwrap();
    pack(&program, &[], &second);
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
}

#[test]
fn dockerfile_makes_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let program = directory.path().join("program");
    fs::write(&program, "any").unwrap();
    pack(&program, &[], &archive);
    let config = config_of(&archive);
    let dockerfile = read("Dockerfile").replace("\\\n", " ");
    let (_, last) = dockerfile.rsplit_once("\nFROM ").unwrap();
    let values = |word: &str| -> Vec<&str> {
        last.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    };
    assert!(last.starts_with("scratch\n"), "{last}");
    assert_eq!(values("USER"), [text(&config["User"])]);
    assert_eq!(values("WORKDIR"), [text(&config["WorkingDir"])]);
    let entrypoint: Value = serde_json::from_str(values("ENTRYPOINT")[0]).unwrap();
    assert_eq!(entrypoint, config["Entrypoint"]);
    let exposed = config["ExposedPorts"].as_object().unwrap();
    let exposed: BTreeSet<_> = exposed.keys().map(|port| port.trim_end_matches("/tcp")).collect();
    assert_eq!(values("EXPOSE")[0].split(' ').collect::<BTreeSet<_>>(), exposed);
    let labels: BTreeMap<_, _> = values("LABEL")[0]
        .split('"')
        .collect::<Vec<_>>()
        .chunks_exact(2)
        .map(|pair| (pair[0].trim().trim_end_matches('=').to_owned(), Value::from(pair[1])))
        .collect();
    assert_eq!(Value::from_iter(labels), config["Labels"]);
    assert!(dockerfile.contains("ln -s tollgate /out/root/bin/ratelimit"));
    assert!(last.contains("COPY --from=build --chown=65534:65534 /out/data /data"));
}

#[test]
fn containers_are_built_with_the_pinned_rust() {
    let pinned = read("rust-toolchain.toml");
    let pinned = pinned.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    let image = format!(" rust:{}-bookworm AS build\n", pinned.trim_matches('"'));
    assert!(read("Dockerfile").contains(&image), "not {image}");
}

/// The services name stages of the Dockerfile, and start what these have.
#[test]
fn containers_of_the_stack_are_stages_of_the_dockerfile() {
    let (compose, dockerfile) = (compose(), read("Dockerfile"));
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["entrypoint"], Value::Null, "{name}");
        let Some(stage) = service["build"]["target"].as_str() else { continue };
        assert!(dockerfile.contains(&format!("\nFROM scratch AS {stage}\n")), "{name}: {stage}");
    }
}

#[test]
fn version_has_a_section_in_the_change_log() {
    let notes = Command::new("deploy/release.sh").arg("notes").current_dir(root()).output();
    let notes = notes.unwrap();
    assert!(notes.status.success(), "{notes:?}");
    let notes = String::from_utf8(notes.stdout).unwrap();
    assert!(notes.contains("### Added\n") && !notes.contains("\n## "), "{notes}");
    assert!(read("CHANGELOG.md").contains("\n## [Unreleased]\n"));
}

fn pack(binary: &Path, libraries: &[PathBuf], archive: &Path) {
    let mut arguments = vec!["pack", "--arch=amd64", "--version", VERSION, "--binary"];
    arguments.extend([binary.to_str().unwrap(), "--output", archive.to_str().unwrap()]);
    for library in libraries {
        arguments.extend(["--library", library.to_str().unwrap()]);
    }
    image(&arguments);
}

/// Runs deploy/image.py, which has to succeed.
fn image(arguments: &[&str]) -> Output {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "image.py {arguments:?}: {said}");
    output
}

fn run(arguments: &[&str]) -> Output {
    let script = root().join("deploy/image.py");
    Command::new("python3").arg(script).args(arguments).output().unwrap()
}

/// The files that the dynamic loader needs for the binary of this build.
fn libraries() -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(BINARY).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let found = listed.split_whitespace().filter(|word| word.starts_with('/'));
    found.map(PathBuf::from).collect()
}

/// The config of the one image in the archive.
fn config_of(archive: &Path) -> Value {
    let read = |path: &str| -> Value {
        let output = Command::new("tar").args(["-xOf", archive.to_str().unwrap(), path]).output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    };
    let blob = |descriptor: &Value| {
        read(&format!("blobs/{}", text(&descriptor["digest"]).replace(':', "/")))
    };
    let manifest = blob(&read("index.json")["manifests"][0]);
    blob(&manifest["config"])["config"].clone()
}

/// True if the sandbox of the smoke test is there. Without it: a failure in CI.
fn has_bwrap() -> bool {
    let found = Command::new("bwrap").arg("--version").output().is_ok();
    let reason = "no bwrap; deploy/tools.sh installs it";
    assert!(found || std::env::var_os("CI").is_none(), "{reason}");
    if !found {
        eprintln!("skipped: {reason}");
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
