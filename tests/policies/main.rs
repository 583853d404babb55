//! Policy files as operators write them: what is refused, where and with which advice, and what good files
//! compile to.
//!
//! A file in `fixtures/policies/invalid` says in its first lines what must be found, in order and completely:
//! `# expect LINE:COLUMN TEXT`, the text being part of the message or the hint. A directory there is one set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use tollgate::policy::{Faults, Options, Source, compile, load};

mod valid;

fn fixtures(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/policies").join(kind)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

struct Expected {
    file: String,
    place: String,
    text: String,
}

/// What the first lines of a file expect.
fn expectations(file: &str, text: &[u8]) -> Vec<Expected> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map_while(|line| line.strip_prefix("# expect "));
    lines
        .map(|line| {
            let (place, text) = line.split_once(' ').expect("a place and a text");
            Expected { file: file.to_owned(), place: place.to_owned(), text: text.to_owned() }
        })
        .collect()
}

/// Names sources by their file names alone, so that expectations can name them.
fn sources(path: &Path) -> Vec<Source> {
    let files = if path.is_dir() { entries(path) } else { vec![path.to_owned()] };
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| Source::new(name(path), fs::read(path).unwrap())).collect()
}

/// What differs between the faults found and those expected; nothing when they agree.
fn difference(faults: &Faults, expected: &[Expected]) -> Option<String> {
    let mut lines = Vec::new();
    for (fault, expected) in faults.faults().iter().zip(expected) {
        let Expected { file, place, text } = expected;
        let hint = fault.hint.as_deref().unwrap_or_default();
        let found = fault.message.contains(text) || hint.contains(text);
        if fault.place.to_string() != format!("{file}:{place}") || !found {
            lines.push(format!("expected {file}:{place} {text}, found\n{fault}"));
        }
        let snippet = fault.snippet.as_ref();
        if snippet.is_none_or(|snippet| snippet.text.chars().count() < snippet.caret) {
            lines.push(format!("no source line for\n{fault}"));
        }
    }
    let (found, expected) = (faults.faults().len(), expected.len());
    if found != expected {
        lines.push(format!("expected {expected} faults, found {found}:\n{faults}"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[test]
fn invalid_files_are_refused_with_every_fault_in_its_place() {
    let paths = entries(&fixtures("invalid"));
    assert!(paths.len() >= 30, "only {} invalid fixtures", paths.len());
    let mut differences = Vec::new();
    for path in paths {
        let sources = sources(&path);
        let expected: Vec<_> =
            sources.iter().flat_map(|source| expectations(&source.name, &source.text)).collect();
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        match compile(&sources, &Options::default()) {
            Ok(_) => differences.push(format!("{} was accepted", path.display())),
            Err(faults) => differences.extend(difference(&faults, &expected)),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn messages_are_lower_case_without_full_stop() {
    for path in entries(&fixtures("invalid")) {
        let faults = compile(&sources(&path), &Options::default()).unwrap_err();
        for fault in faults.faults() {
            let text = &fault.message;
            assert!(!text.starts_with(char::is_uppercase) && !text.ends_with('.'), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}

/// The reference's cases: those that it refuses, and those whose files it takes.
#[test]
fn conformance_files_are_taken_or_refused_as_by_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases.json");
    let cases: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for case in cases.as_array().unwrap() {
        let files = case["config_files"].as_object().unwrap();
        let sources: Vec<_> = files
            .iter()
            .map(|(name, text)| Source::new(name.as_str(), text.as_str().unwrap()))
            .collect();
        let name = &case["name"];
        match compile(&sources, &Options::default()) {
            Ok(_) if case["refuse"] == true => panic!("{name} was accepted"),
            Err(faults) if case["refuse"] != true => panic!("{name} was refused:\n{faults}"),
            Ok(_) => taken += 1,
            Err(faults) => {
                refused += 1;
                for fault in faults.faults() {
                    let named = sources.iter().any(|source| source.name == fault.place.file);
                    assert!(named && fault.place.line >= 1, "{name}: {fault}");
                }
            }
        }
    }
    assert_eq!((taken, refused), (65, 12));
}

#[test]
fn shipped_example_compiles_without_warnings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/policies/example.yaml");
    let compiled = load(&path, &Options::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let warnings: Vec<_> = compiled.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.is_empty(), "{}", warnings.join("\n"));
    assert!(compiled.set.domain(b"example").is_some());
}

fn all_texts() -> Vec<Vec<u8>> {
    let files = ["valid", "invalid"].map(|kind| entries(&fixtures(kind)));
    let files = files.iter().flatten().filter(|path| path.is_file());
    files.map(|path| fs::read(path).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A file with bytes overwritten, cut out or repeated is taken or refused, in finite time.
    #[test]
    fn mangled_files_are_taken_or_refused(
        file in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..8_usize, "[a-z0-9 \\-:&*!|>'\"{}\\[\\],#\t\n~<]{0,4}"), 1..6),
    ) {
        let mut text = file.get(&all_texts()).clone();
        for (at, cut, put) in edits {
            let start = at.index(text.len());
            let end = (start + cut).min(text.len());
            text.splice(start..end, put.into_bytes());
            text.push(b'\n');
        }
        if let Err(faults) = compile(&[Source::new("a.yaml", text)], &Options::default()) {
            prop_assert!(!faults.faults().is_empty());
            prop_assert!(faults.faults().iter().all(|fault| fault.place.line >= 1));
        }
    }
}
