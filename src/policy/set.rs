//! All policies together, compiled: what requests are looked up in.
//!
//! A set never changes; a reload makes another one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::matcher::Level;
use super::rule::Rule;
use super::schema::Signs;

/// Every domain that has a policy. The default has none.
#[derive(Debug, Default)]
pub struct PolicySet {
    domains: HashMap<Box<[u8]>, Arc<Domain>>,
    rules: Vec<Arc<Rule>>,
    version: String,
}

impl PolicySet {
    pub(super) fn new(domains: Vec<Domain>, rules: Vec<Arc<Rule>>, version: String) -> Self {
        let named = |domain: Domain| (domain.name.as_bytes().into(), Arc::new(domain));
        Self { domains: domains.into_iter().map(named).collect(), rules, version }
    }

    /// The domain of that name.
    pub fn domain(&self, name: &[u8]) -> Option<&Arc<Domain>> {
        self.domains.get(name)
    }

    /// All domains, ordered by name.
    pub fn domains(&self) -> Vec<&Arc<Domain>> {
        let mut domains: Vec<_> = self.domains.values().collect();
        domains.sort_by_key(|domain| domain.name());
        domains
    }

    /// All rules, in file order: the rule at position i has index i.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// True if a rule marks values as sensitive.
    pub fn marks_sensitive(&self) -> bool {
        self.rules.iter().any(|rule| rule.path.iter().any(|entry| entry.sensitive))
    }

    /// True if a domain has limits that hold.
    pub fn have_holds(&self) -> bool {
        self.domains.values().any(|domain| domain.signs.is_some())
    }

    /// Twelve hexadecimal digits that two sets share when they were made of the same files'
    /// contents; empty for the default.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The policy of one domain.
#[derive(Debug)]
pub struct Domain {
    name: Arc<str>,
    root: Level,
    marks_sensitive: bool,
    /// None: no limit of it holds.
    signs: Option<Signs>,
}

impl Domain {
    pub(super) fn new(name: Arc<str>, root: Level, signs: Option<Signs>) -> Self {
        let marks_sensitive = root.marks_sensitive();
        Self { name, root, marks_sensitive, signs }
    }

    /// The domain's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The entries that are no part of a counter. `None`: no limit holds, and all are.
    pub const fn signs(&self) -> Option<&Signs> {
        self.signs.as_ref()
    }

    /// The rule for a descriptor of these (key, value) entries: that of the node its last entry
    /// leads to.
    ///
    /// None for a descriptor without entries, one that leads nowhere, and one that ends at a node
    /// without limits. Allocates nothing.
    pub fn find<'e>(
        &self,
        entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>,
    ) -> Option<&Arc<Rule>> {
        self.root.find(entries)
    }

    /// Returns whether a node of the policy marks values as sensitive.
    pub const fn marks_sensitive(&self) -> bool {
        self.marks_sensitive
    }

    /// For each of these entries whether its value is sensitive, up to the first that leads
    /// nowhere: also of a descriptor that no rule matches.
    pub fn sensitive<'d, 'e: 'd>(
        &'d self,
        entries: impl IntoIterator<Item = (&'e [u8], &'e [u8]), IntoIter: 'd>,
    ) -> impl Iterator<Item = bool> + 'd {
        self.root.sensitive(entries)
    }

    /// True if the policy has longer descriptors that begin with these (key, value) entries.
    pub fn goes_on<'e>(&self, entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>) -> bool {
        self.root.goes_on(entries)
    }
}
