//! The verdict on traces.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};

use tollgate::verify::{Finding, Promise, Trace, Traces};

use super::terms::{Judged, Terms};

/// The finding on one counter.
#[derive(Debug)]
pub(super) struct Row {
    /// The name of the counter.
    pub(super) counter: String,
    /// Its promise.
    pub(super) promise: Promise,
    /// The finding.
    pub(super) finding: Finding,
}

/// The findings on all counters.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Broken promises first, then by excess.
    pub(super) rows: Vec<Row>,
    /// The number of keys that were not judged, by reason.
    pub(super) not_judged: BTreeMap<&'static str, usize>,
    /// The calls that were admitted.
    pub(super) admitted: usize,
    /// The calls that were refused.
    pub(super) refused: usize,
}

/// A counter, and the keys whose hits count in it.
struct Counter {
    name: String,
    promise: Promise,
    keys: Vec<usize>,
    /// The limit of each of its keys, so that it alone can refuse them.
    alone: bool,
}

/// Judges every counter.
///
/// # Errors
/// A key without a promise.
pub(super) fn judge(terms: &Terms, traces: Traces) -> Result<Verdict, String> {
    let traces = traces.into_vec();
    let mut verdict = Verdict::default();
    let mut counters: Vec<Counter> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for (position, (key, trace)) in traces.iter().enumerate() {
        verdict.admitted += trace.admitted();
        verdict.refused += trace.refused();
        let of_key = match terms.of(key)? {
            Judged::Counters(of_key) => of_key,
            Judged::Not(reason) => {
                *verdict.not_judged.entry(reason).or_default() += 1;
                continue;
            }
        };
        let alone = of_key.len() == 1;
        for (name, promise) in of_key {
            let place = match index.entry(name) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let name = new.key().clone();
                    counters.push(Counter { name, promise, keys: Vec::new(), alone: true });
                    *new.insert(counters.len() - 1)
                }
            };
            if let Some(counter) = counters.get_mut(place) {
                counter.keys.push(position);
                counter.alone &= alone;
            }
        }
    }
    verdict.rows = counters.into_iter().map(|counter| row(counter, &traces)).collect();
    verdict.rows.sort_by(|one, other| excess(other).total_cmp(&excess(one)));
    Ok(verdict)
}

fn row(counter: Counter, traces: &[(Box<str>, Trace)]) -> Row {
    let Counter { name, promise, keys, alone } = counter;
    let mut of_keys = keys.iter().filter_map(|key| traces.get(*key)).map(|(_, trace)| trace);
    let merged;
    let trace = match (of_keys.next(), of_keys.next()) {
        (Some(only), None) => only,
        (first, second) => {
            let mut all = Trace::default();
            first.into_iter().chain(second).chain(of_keys).for_each(|trace| all.merge(trace));
            merged = all;
            &merged
        }
    };
    let mut finding = promise.finding(trace);
    if !alone {
        // Another limit may have refused, so a refusal says nothing about this one.
        (finding.needless, finding.exact_hits) = (None, None);
    }
    Row { counter: name, promise, finding }
}

/// The excess of the worst interval; the least number if there is none.
fn excess(row: &Row) -> f64 {
    row.finding.worst.map_or(f64::MIN, |worst| worst.excess())
}
