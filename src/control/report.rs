//! Log lines about what was put in force: bounded lists, whatever a registry or a directory holds.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use super::layered::Difference;
use crate::policy::Warning;
use crate::telemetry::escape::escape;

/// The names that one list of a line shows.
const MAX_LISTED: usize = 10;

/// The warnings about one set that are logged.
const MAX_WARNINGS: usize = 50;

/// At most [`MAX_LISTED`] names, and the number of the others; `none` without any.
#[derive(Debug)]
pub(super) struct Listed<I>(pub(super) I);

impl<I: ExactSizeIterator<Item: Display> + Clone> Display for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.len();
        if total == 0 {
            return f.write_str("none");
        }
        for (i, name) in self.0.clone().take(MAX_LISTED).enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        match total.saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Reports warnings about policies. A control plane may cause thousands of one kind.
pub(super) fn warnings(warnings: &[Warning]) {
    for warning in warnings.iter().take(MAX_WARNINGS) {
        tracing::warn!("{warning}");
    }
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        tracing::warn!(more, "further warnings about policies are left out");
    }
}

/// Reports new policies of the feed `origin`, version `version` of all policies.
pub(super) fn reloaded(feed: &str, version: u64, rules: usize, difference: &Difference) {
    let listed = |domains: &[std::sync::Arc<str>]| {
        Listed(domains.iter().map(|domain| escape(domain.as_bytes()))).to_string()
    };
    let Difference { added, removed, changed } = difference;
    let (added, removed, changed) = (listed(added), listed(removed), listed(changed));
    tracing::info!(feed, version, rules, added, removed, changed, "policies reloaded");
}

/// The records of the registry that came since the last line.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Clients that were written, and clients that are gone.
    pub(super) clients: [usize; 2],
    /// Plans, by domain and name, and what became of them.
    pub(super) plans: BTreeMap<String, &'static str>,
    /// Rules that operators turned, by domain and label.
    pub(super) scales: BTreeMap<String, &'static str>,
    /// Domains and what became of their policies.
    pub(super) policies: BTreeMap<String, &'static str>,
    /// Domains, `all` for the global mode, and their modes.
    pub(super) modes: BTreeMap<String, &'static str>,
}

impl Batch {
    /// Writes one line, and begins anew; nothing without records.
    pub(super) fn flush(&mut self, revision: u64) {
        let Self { clients: [clients, gone], plans, scales, policies, modes } =
            std::mem::take(self);
        let named = [&plans, &scales, &policies, &modes];
        if clients + gone + named.iter().map(|named| named.len()).sum::<usize>() == 0 {
            return;
        }
        let pairs = |pairs: &BTreeMap<String, &'static str>| {
            Listed(pairs.iter().map(|(domain, what)| format!("{domain}={what}"))).to_string()
        };
        let (plans, scales) = (pairs(&plans), pairs(&scales));
        let (policies, modes) = (pairs(&policies), pairs(&modes));
        tracing::info!(
            revision,
            clients,
            clients_removed = gone,
            plans,
            scales,
            policies,
            modes,
            "a revision of the registry is in force"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded() {
        assert_eq!(Listed([0; 0].iter()).to_string(), "none");
        assert_eq!(Listed([1, 2].iter()).to_string(), "1, 2");
        let many: Vec<_> = (1..=12).collect();
        assert_eq!(Listed(many.iter()).to_string(), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
