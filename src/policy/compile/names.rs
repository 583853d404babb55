//! Names of limits within one domain: who has them, and who replaces whom.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::report::Report;
use super::super::schema::Limit;
use super::super::words::nearest;
use crate::yaml::{At, quote};

/// The most names in a hint.
const MAX_NAMES_SHOWN: usize = 10;

#[derive(Default)]
pub(super) struct Names {
    /// True if a limit of that name is enforced.
    enforced: HashMap<Arc<str>, bool>,
    replaced: Vec<Replaced>,
}

struct Replaced {
    name: Arc<str>,
    at: At,
    by_shadow: bool,
}

impl Names {
    pub(super) fn add(&mut self, limits: &[Limit], shadow: bool) {
        for limit in limits {
            if let Some(name) = limit.name.good() {
                *self.enforced.entry(name).or_default() |= !shadow;
            }
            self.replaced.extend(limit.replaces.iter().map(|(name, at)| Replaced {
                name: Arc::clone(name),
                at: *at,
                by_shadow: shadow,
            }));
        }
    }

    /// The names there are.
    fn known(&self) -> String {
        let mut names: Vec<String> = self.enforced.keys().map(|name| quote(name)).collect();
        if names.is_empty() {
            return "give the limit that is meant a name".to_owned();
        }
        names.sort_unstable();
        let more = names.len().saturating_sub(MAX_NAMES_SHOWN);
        names.truncate(MAX_NAMES_SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("the names are {}{more}", names.join(", "))
    }

    /// Warns of names that nobody has, and of limits that a shadow rule switches off.
    pub(super) fn check(&self, report: &mut Report<'_>) {
        for Replaced { name, at, by_shadow } in &self.replaced {
            let quoted = quote(name);
            match self.enforced.get(name) {
                None => {
                    let message = format!("no limit of this domain is named {quoted}");
                    let hint = nearest(name, self.enforced.keys().map(AsRef::as_ref));
                    let hint = hint.unwrap_or_else(|| self.known());
                    report.warn(*at, message, &hint);
                }
                Some(true) if *by_shadow => {
                    let message = format!("a shadow rule replaces {quoted}, which is enforced");
                    report.warn(*at, message, "where both apply, nothing is enforced");
                }
                Some(_) => {}
            }
        }
    }
}
