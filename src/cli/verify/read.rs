//! Reads files of calls.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use tollgate::verify::{Line, Traces};

use super::terms::Terms;
use crate::cli::exit::Failure;

const BUFFER_BYTES: usize = 1 << 20;

/// The beginning of every header. It may stand on any line, so that files can be concatenated.
const HEADER_START: &str = "key,sent_us,";

/// Adds the calls of all files to `traces`.
///
/// # Errors
/// The first file or line that cannot be read, and the first key that has no promise.
pub(super) fn read(
    paths: &[PathBuf],
    mut traces: Traces,
    terms: &Terms,
) -> Result<Traces, Failure> {
    let mut calls = 0;
    for path in paths {
        let fault = |what: String| Failure::Line(format!("{}: {what}", path.display()));
        let cannot = |error: io::Error| fault(format!("cannot be read: {error}"));
        calls += if path == Path::new("-") {
            read_one(io::stdin().lock(), path, &mut traces, terms)?
        } else {
            let file = File::open(path).map_err(cannot)?;
            read_one(BufReader::with_capacity(BUFFER_BYTES, file), path, &mut traces, terms)?
        };
    }
    if calls == 0 {
        let what = "the traces have no calls, so nothing was checked";
        return Err(Failure::Line(what.to_owned()));
    }
    Ok(traces)
}

/// Returns the number of calls.
fn read_one(
    mut input: impl BufRead,
    path: &Path,
    traces: &mut Traces,
    terms: &Terms,
) -> Result<u64, Failure> {
    let (mut line, mut number, mut calls) = (Vec::new(), 0_u64, 0);
    loop {
        line.clear();
        number += 1;
        let fault = |what: String| Failure::Line(format!("{}:{number}: {what}", path.display()));
        let bytes = input.read_until(b'\n', &mut line);
        if bytes.map_err(|error| fault(format!("cannot be read: {error}")))? == 0 {
            return Ok(calls);
        }
        let text = str::from_utf8(line.trim_ascii_end());
        let text = text.map_err(|_| fault("is not UTF-8".to_owned()))?;
        if text.is_empty() || text.starts_with(HEADER_START) {
            continue;
        }
        let parsed = Line::parse(text).map_err(fault)?;
        if traces.push(&parsed) {
            terms.of(parsed.key).map_err(fault)?;
        }
        calls += 1;
    }
}
