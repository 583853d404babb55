//! Descriptors as people may see them: escaped, sensitive values hashed.

use std::fmt::{self, Display};

use super::key::SensitiveHasher;
use super::request::Entry;
use crate::policy::{Domain, Rule};
use crate::telemetry::escape::escape;

/// The descriptor of a client as one text; see [`shown`].
pub(crate) fn client_text(
    entries: &[Entry],
    rule: Option<&Rule>,
    domain: Option<&Domain>,
    hasher: &SensitiveHasher,
) -> String {
    joined(shown(entries, rule, domain, hasher))
}

/// The entries as one text.
pub(crate) fn joined<'a>(entries: impl Iterator<Item = Shown<'a>>) -> String {
    entries.map(|entry| entry.to_string()).collect::<Vec<_>>().join("|")
}

/// The entries as `key=value`, escaped. Sensitive values are hashed also where no rule decided: none may match, or none
/// was looked for.
pub(crate) fn shown<'a>(
    entries: &'a [Entry],
    rule: Option<&'a Rule>,
    domain: Option<&'a Domain>,
    hasher: &'a SensitiveHasher,
) -> impl Iterator<Item = Shown<'a>> {
    let of_rule = rule.into_iter().flat_map(|rule| rule.path.iter().map(|path| path.sensitive));
    let pairs = entries.iter().map(|entry| (entry.key.as_ref(), entry.value.as_ref()));
    let domain = if rule.is_none() { domain } else { None };
    let of_domain = domain.into_iter().flat_map(move |domain| domain.sensitive(pairs.clone()));
    let sensitive = of_rule.chain(of_domain).chain(std::iter::repeat(false));
    let entry =
        move |(entry, sensitive)| Shown { entry, hasher: Some(hasher).filter(|_| sensitive) };
    entries.iter().zip(sensitive).map(entry)
}

/// An entry as people may see it.
pub(crate) struct Shown<'a> {
    entry: &'a Entry,
    /// What hides its value; none: it may be seen.
    hasher: Option<&'a SensitiveHasher>,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { key, value } = self.entry;
        match self.hasher {
            Some(hasher) => write!(f, "{}={}", escape(key), hasher.hash(value)),
            None => write!(f, "{}={}", escape(key), escape(value)),
        }
    }
}
