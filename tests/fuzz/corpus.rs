//! The files of `fuzz/`.

use std::fs;
use std::path::{Path, PathBuf};

/// The inputs of a target with their files, by name.
pub fn of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = list(&Path::new("corpus").join(target));
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The names of the programs that `cargo fuzz` runs.
pub fn programs() -> Vec<String> {
    names(&list(Path::new("fuzz_targets")))
}

/// The names of the corpora.
pub fn directories() -> Vec<String> {
    names(&list(Path::new("corpus")))
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
