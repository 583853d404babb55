//! A settings file.
//!
//! Input: the text.

use std::cell::RefCell;
use std::fs;

use tempfile::NamedTempFile;
use tollgate::config::{self, Faults, Loaded, Sources};

/// Faults with their origin, or settings that load again from what `print-config` prints of them.
pub fn run(text: &[u8]) {
    // Files that a setting names are read as a whole. Those of the system may have no end.
    if ["/dev", "/proc", "/sys"].iter().any(|path| find(text, path.as_bytes())) {
        return;
    }
    match load(text) {
        Ok(loaded) => check(&loaded),
        Err(faults) => {
            assert!(!faults.0.is_empty());
            assert!(faults.0.iter().all(|fault| !fault.origin.is_empty()), "{faults}");
        }
    }
}

fn check(loaded: &Loaded) {
    let printed = loaded.to_yaml();
    let again = match load(printed.as_bytes()) {
        Ok(again) => again,
        // A secret is not printed, so it does not load.
        Err(_) if printed.contains("***") => return,
        Err(faults) => panic!("{faults}\n{printed}"),
    };
    let mut changed = loaded.settings.changed(&again.settings);
    // Printed in its normal form, such as with a blank as `%20`.
    changed.retain(|key| key != "redis.url");
    assert!(changed.is_empty(), "{changed:?}\n{printed}");
    assert_eq!(without_origins(&again.to_yaml()), without_origins(&printed));
}

/// Each line up to the comment that says where its value is from.
fn without_origins(printed: &str) -> Vec<&str> {
    let value = |line: &'_ str| line.rfind(" # ").unwrap_or(line.len());
    printed.lines().map(|line| &line[..value(line)]).collect()
}

fn load(text: &[u8]) -> Result<Loaded, Faults> {
    thread_local!(static FILE: RefCell<NamedTempFile> =
        RefCell::new(NamedTempFile::new().expect("a file")));
    FILE.with_borrow(|file| {
        fs::write(file.path(), text).expect("to write");
        let file = Some(file.path().to_owned());
        config::load(&Sources { file, ..Sources::default() })
    })
}

fn find(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
