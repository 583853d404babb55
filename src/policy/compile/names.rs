//! Names of limits within one domain: who has them, and who replaces whom.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::fault::Report;
use super::super::schema::Limit;
use crate::yaml::{At, quote};

#[derive(Default)]
pub(super) struct Names {
    /// Whether a limit of that name is enforced.
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

    /// Warns of names that nobody has, and of limits that a shadow rule switches off.
    pub(super) fn check(&self, report: &mut Report<'_>) {
        for Replaced { name, at, by_shadow } in &self.replaced {
            let quoted = quote(name);
            match self.enforced.get(name) {
                None => {
                    report.warn(*at, format!("no limit of this domain is named {quoted}"), "");
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
