//! A policy file.
//!
//! Input: the text, of which 16 KiB count.

use std::time::{Duration, Instant};

use tollgate::policy::{Fault, Options, Source, Warning, compile};

/// Longer files find nothing that shorter ones do not.
const MAX_BYTES: usize = 16 << 10;

/// No file of this length takes longer, also on a busy machine and with sanitizers: the slowest has
/// half a million faults by aliases.
const MAX_TIME: Duration = Duration::from_mins(1);

const FILE: &str = "policies.yaml";

/// A set that knows its domain, or faults. All that is said has a place inside the text.
pub fn run(data: &[u8]) {
    let text = data.get(..MAX_BYTES).unwrap_or(data);
    let started = Instant::now();
    let compiled = compile(&[Source::new(FILE, text)], &Options::default());
    assert!(started.elapsed() < MAX_TIME, "{:?}", started.elapsed());
    let lengths = lengths(text);
    let warnings = match &compiled {
        Ok(compiled) => {
            let [domain] = compiled.domains.as_slice() else { panic!("{:?}", compiled.domains) };
            let domain = compiled.set.domain(domain.as_bytes()).expect("its own domain");
            let entries = [(&b"client"[..], &b"gold-1"[..]), (b"path", b"/api/v1/orders")];
            for length in 0..=entries.len() {
                domain.find(entries.into_iter().take(length));
            }
            &compiled.warnings[..]
        }
        Err(faults) => {
            assert!(!faults.faults().is_empty());
            faults.faults().iter().for_each(|fault| check(fault, &lengths));
            faults.warnings()
        }
    };
    for Warning(warning) in warnings {
        check(warning, &lengths);
    }
}

/// The number of characters of each line, as YAML breaks lines. A byte order mark is in none.
fn lengths(text: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.split('\n').map(|line| line.chars().count()).collect()
}

/// Lines and columns count from 1. A column may lie behind the last character of its line, and a
/// line behind the last one, where something is missing.
fn check(fault: &Fault, lengths: &[usize]) {
    let (line, column) = (fault.place.line as usize, fault.place.column as usize);
    assert_eq!(&*fault.place.file, FILE, "{fault}");
    assert!((1..=lengths.len() + 1).contains(&line), "{} lines: {fault}", lengths.len());
    let length = lengths.get(line - 1).copied().unwrap_or_default();
    assert!((1..=length + 1).contains(&column), "{length} characters: {fault}");
    assert!(!fault.message.is_empty() && !fault.message.contains(char::is_control), "{fault:?}");
}
