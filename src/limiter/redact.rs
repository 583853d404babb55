//! Descriptors as people may see them: escaped, sensitive values hashed.
//!
//! [`Sensitivity`] alone says which values must not be shown. Counter keys, metadata, metric
//! labels, the audit log and logs of denials ask it and decide nothing themselves.

use std::fmt::{self, Display};
use std::slice;

use super::key::{SensitiveHasher, shared_pattern};
use super::request::Entry;
use crate::policy::{Domain, How, PathEntry, Rule};
use crate::telemetry::escape::{PlainWrite, escape, is_printable, write_escaped};

/// Says which values of a descriptor must not be shown or stored as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sensitivity<'a> {
    /// Those that the matched rule marks.
    Rule(&'a Rule),
    /// Those that the nodes of the domain mark, as far as the descriptor leads: no rule matches, or
    /// none was looked for.
    Domain(&'a Domain),
    /// None: no policy names the domain.
    Nothing,
}

impl<'a> Sensitivity<'a> {
    /// That of a descriptor that matches `rule`, in `domain`.
    pub(crate) const fn of(rule: Option<&'a Rule>, domain: Option<&'a Domain>) -> Self {
        match (rule, domain) {
            (Some(rule), _) => Self::Rule(rule),
            (None, Some(domain)) => Self::Domain(domain),
            (None, None) => Self::Nothing,
        }
    }

    /// One flag for each of `entries`: true if its value is sensitive.
    pub(crate) fn of_entries(self, entries: &'a [Entry<'a>]) -> impl Iterator<Item = bool> + 'a {
        let mut marks = match self {
            Self::Rule(rule) => Marks::Path(rule.path.iter()),
            Self::Domain(domain) => {
                let pairs = entries.iter().map(|entry| (entry.key, entry.value));
                Marks::Nodes(Box::new(domain.sensitive(pairs)))
            }
            Self::Nothing => Marks::Path([].iter()),
        };
        entries.iter().map(move |_| marks.next().unwrap_or(false))
    }
}

/// The flags of sensitive entries. Most descriptors match a rule, so that has a way of its own.
enum Marks<'a> {
    Path(slice::Iter<'a, PathEntry>),
    Nodes(Box<dyn Iterator<Item = bool> + 'a>),
}

impl Marks<'_> {
    fn next(&mut self) -> Option<bool> {
        match self {
            Self::Path(path) => path.next().map(|entry| entry.sensitive),
            Self::Nodes(nodes) => nodes.next(),
        }
    }
}

/// A descriptor as people may see it; as text its entries joined by `|`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownDescriptor<'a> {
    entries: &'a [Entry<'a>],
    sensitivity: Sensitivity<'a>,
    hasher: &'a SensitiveHasher,
}

impl<'a> ShownDescriptor<'a> {
    pub(crate) const fn new(
        entries: &'a [Entry<'a>],
        sensitivity: Sensitivity<'a>,
        hasher: &'a SensitiveHasher,
    ) -> Self {
        Self { entries, sensitivity, hasher }
    }

    /// The entries, in order.
    pub(crate) fn entries(self) -> impl Iterator<Item = ShownEntry<'a>> {
        let sensitive = self.sensitivity.of_entries(self.entries);
        let shown = move |(&entry, sensitive): (&Entry<'a>, bool)| ShownEntry {
            entry,
            hasher: Some(self.hasher).filter(|_| sensitive),
        };
        self.entries.iter().zip(sensitive).map(shown)
    }
}

impl Display for ShownDescriptor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.entries().enumerate() {
            f.write_str(if i == 0 { "" } else { "|" })?;
            entry.fmt(f)?;
        }
        Ok(())
    }
}

/// An entry as people may see it; as text `key=value`.
pub(crate) struct ShownEntry<'a> {
    entry: Entry<'a>,
    /// Hides its value; none: it may be seen.
    hasher: Option<&'a SensitiveHasher>,
}

impl ShownEntry<'_> {
    pub(super) fn key(&self) -> String {
        escape(self.entry.key).to_string()
    }

    /// True if the value is hidden by its hash.
    pub(super) const fn is_hashed(&self) -> bool {
        self.hasher.is_some()
    }

    pub(super) fn value(&self) -> String {
        let value = self.entry.value;
        self.hasher.map_or_else(|| escape(value).to_string(), |hasher| hasher.hash(value))
    }
}

impl ShownEntry<'_> {
    /// Its key and value, if both are text as they are.
    pub(crate) fn plain(&self) -> Option<(&[u8], &[u8])> {
        let Entry { key, value } = self.entry;
        let is_plain = self.hasher.is_none() && is_printable(key) && is_printable(value);
        is_plain.then_some((key, value))
    }

    /// Writes it as text.
    pub(crate) fn write(&self, out: &mut impl PlainWrite) -> fmt::Result {
        let Entry { key, value } = self.entry;
        write_escaped(out, key)?;
        out.write_plain(b"=")?;
        match self.hasher {
            Some(hasher) => out.write_str(&hasher.hash(value)),
            None => write_escaped(out, value),
        }
    }
}

impl Display for ShownEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// The metric label of a rule that wants the values of requests in it; none: it does not.
///
/// `detailed_metric` shows every value, `value_to_metric` that of its node; a pattern whose values
/// share a counter stays a pattern.
pub(super) fn detailed_label(
    rule: &Rule,
    entries: &[Entry],
    hasher: &SensitiveHasher,
) -> Option<String> {
    if !rule.path.iter().any(|path| shows(rule, path)) {
        return None;
    }
    let part = |(key, value): (&str, Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    };
    let parts = detailed(rule, entries, hasher).map(part);
    Some(parts.collect::<Vec<_>>().join("/"))
}

/// The same as nodes of envoyproxy/ratelimit.
pub(super) fn detailed_nodes(
    rule: &Rule,
    entries: &[Entry],
    hasher: &SensitiveHasher,
) -> Vec<String> {
    let node = |(key, value): (&str, Option<String>)| node(key, value.as_deref().unwrap_or(""));
    detailed(rule, entries, hasher).map(node).collect()
}

/// The nodes of envoyproxy/ratelimit for a descriptor that no rule matches: every entry with its
/// value.
pub(super) fn shown_nodes(shown: ShownDescriptor<'_>) -> Vec<String> {
    shown.entries().map(|entry| node(&entry.key(), &entry.value())).collect()
}

fn node(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}_{value}") }
}

fn shows(rule: &Rule, path: &PathEntry) -> bool {
    rule.detailed_metric || path.value_to_metric
}

/// The key of each entry, and its value, pattern or hash as far as metrics show it.
fn detailed<'a>(
    rule: &'a Rule,
    entries: &'a [Entry<'a>],
    hasher: &'a SensitiveHasher,
) -> impl Iterator<Item = (&'a str, Option<String>)> {
    let shown = ShownDescriptor::new(entries, Sensitivity::Rule(rule), hasher);
    shown.entries().zip(&rule.path).map(|(entry, path)| {
        let value = match (&path.how, shared_pattern(path)) {
            (_, Some(pattern)) => Some(pattern.to_owned()),
            _ if shows(rule, path) => Some(entry.value()),
            (How::Exact(value) | How::Pattern(value), _) if entry.hasher.is_none() => {
                Some(value.to_string())
            }
            _ => None,
        };
        (&*path.key, value)
    })
}
