//! Lines of `export` as records, each with the number of its line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use tollgate::edge::admin::pb;

use super::super::line::{Line, Policy};
use super::refused;
use crate::cli::exit::Failure;

/// Something with the number of its line.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    pub(super) line: usize,
    pub(super) item: T,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) policies: Vec<Numbered<Policy>>,
    pub(super) plans: Vec<Numbered<pb::Plan>>,
    pub(super) clients: Vec<Numbered<pb::Client>>,
}

/// The name of a client: its domain and its entries.
pub(super) type Name = (String, Vec<(String, String)>);

/// The records of a file.
///
/// # Errors
/// Every line that cannot be read, with its number.
pub(super) fn read(path: &Path) -> Result<Records, Failure> {
    if path == Path::new("-") {
        return read_lines(io::stdin().lock());
    }
    let file = File::open(path)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    read_lines(BufReader::new(file))
}

fn read_lines(lines: impl BufRead) -> Result<Records, Failure> {
    let mut records = Records::default();
    let mut faults = Vec::new();
    let mut first: HashMap<Name, usize> = HashMap::new();
    for (text, line) in lines.split(b'\n').zip(1..) {
        let text = text.map_err(|error| Failure::Failed(format!("line {line}: {error}")))?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let item = match serde_json::from_slice(&text) {
            Ok(Line::Policy(item)) => {
                records.policies.push(Numbered { line, item });
                continue;
            }
            Ok(Line::Plan(plan)) => {
                match pb::Plan::try_from(plan) {
                    Ok(item) => records.plans.push(Numbered { line, item }),
                    Err(error) => faults.push(format!("line {line}: {error}")),
                }
                continue;
            }
            Ok(Line::Client(client)) => pb::Client::try_from(client),
            Err(error) => Err(error.to_string()),
        };
        match item {
            Err(error) => faults.push(format!("line {line}: {error}")),
            Ok(item) => match first.insert(name(&item), line) {
                None => records.clients.push(Numbered { line, item }),
                Some(other) => faults.push(format!("line {line}: is the client of line {other}")),
            },
        }
    }
    if faults.is_empty() { Ok(records) } else { Err(refused(&faults)) }
}

pub(super) fn name(client: &pb::Client) -> Name {
    let entry = |entry: &pb::Entry| (entry.key.clone(), entry.value.clone());
    (client.domain.clone(), client.entries.iter().map(entry).collect())
}
