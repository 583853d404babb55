//! The keys of entries that say something about a request, and are not part of a counter.

use std::sync::Arc;

use super::super::report::Report;
use super::{Fields, Kind};

pub(super) const SIGNS: Kind =
    Kind { name: "signs", keys: &["hold", "kind", "report"], elsewhere: &[] };

/// The keys of entries that are not part of a counter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signs {
    /// The handle of a hold.
    pub hold: Arc<str>,
    /// The kind of what was used.
    pub kind: Arc<str>,
    /// A report of how a request ended.
    pub report: Arc<str>,
}

impl Default for Signs {
    fn default() -> Self {
        Self { hold: "hold".into(), kind: "kind".into(), report: "report".into() }
    }
}

impl Signs {
    pub(super) fn read(file: &Fields<'_>, report: &mut Report<'_>) -> Self {
        let mut signs = Self::default();
        let node = file.get("signs").map(|entry| &entry.value);
        let Some(fields) = node.and_then(|node| Fields::open(node, &SIGNS, report)) else {
            return signs;
        };
        let names =
            [("hold", &mut signs.hold), ("kind", &mut signs.kind), ("report", &mut signs.report)];
        for (key, name) in names {
            let given = fields.text(key, report).good();
            if let Some(given) = given.filter(|given| !given.is_empty()) {
                *name = given;
            }
        }
        signs
    }
}
