//! A caller as the rank keeps it: for people, with sensitive values hashed, and of bounded size.

use crate::limiter::redact::ShownDescriptor;
use crate::limiter::report::Report;
use crate::limiter::resolve::Resolver;
use crate::limiter::snapshot::Snapshot;
use crate::limiter::status::Status;
use crate::limits::name::Value;
use crate::limits::{ClientName, Entries};
use crate::telemetry::metrics::{LimitOf, TopLabels};

/// The most bytes of keys and values that are kept of a descriptor.
const MAX_SHOWN_BYTES: usize = 1_024;

/// A descriptor that has a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The domain and the descriptor: keys and values escaped as in logs, sensitive values hashed.
    pub name: ClientName,
    /// True if the descriptor is longer than what is kept of it.
    pub truncated: bool,
    /// The label of the rule that matched; empty: none did.
    pub rule: String,
    /// True if the limit is that of a client.
    pub client: bool,
    /// The limit that mattered when it was counted first; none: an override that cannot be
    /// understood.
    pub limit: Option<Report>,
    /// True if shadow mode lets its requests pass.
    pub shadow: bool,
}

impl Caller {
    /// The caller of `domain` that got `status` for the descriptor `shown`.
    pub(super) fn of(domain: &[u8], shown: ShownDescriptor<'_>, status: &Status) -> Self {
        let (entries, truncated) = entries(shown);
        let domain = String::from_utf8_lossy(domain);
        Self {
            name: ClientName { domain: domain.as_ref().into(), entries },
            truncated,
            rule: status.rule.as_ref().map_or_else(String::new, |rule| rule.label.clone()),
            client: status.client.is_some(),
            limit: status.limited().map(|limited| limited.limit.detached()),
            shadow: status.shadow,
        }
    }

    /// The rule, or in parentheses what limits in its place, as in the labels of decisions.
    pub fn rule_label(&self) -> &str {
        match (self.client, &*self.rule) {
            (true, "") => LimitOf::CLIENT,
            (false, "") => LimitOf::OVERRIDE,
            (_, rule) => rule,
        }
    }

    /// Its name by the policies of `snapshot`, which may mark more values as sensitive than when it
    /// was counted.
    pub fn shown_name(&self, resolver: &Resolver, snapshot: &Snapshot) -> ClientName {
        resolver.hidden_name(&self.name, snapshot).unwrap_or_else(|| self.name.clone())
    }

    /// The labels of its series.
    pub fn labels(&self, resolver: &Resolver, snapshot: &Snapshot) -> TopLabels {
        let name = self.shown_name(resolver, snapshot);
        let pairs = name.entries.texts().map(|(key, value)| format!("{key}={}", value.text()));
        TopLabels {
            domain: name.domain.to_string(),
            rule: self.rule_label().to_owned(),
            limit: self.limit.as_ref().map_or_else(String::new, Report::label),
            descriptor: pairs.collect::<Vec<_>>().join("|"),
        }
    }
}

/// The entries, and true if they are not complete.
fn entries(shown: ShownDescriptor<'_>) -> (Entries, bool) {
    let (mut room, mut truncated) = (MAX_SHOWN_BYTES, false);
    let mut keep = |mut text: String| {
        let end = text.floor_char_boundary(room);
        truncated |= end < text.len();
        text.truncate(end);
        room -= end;
        text
    };
    let kept: Vec<(String, String, bool)> = shown
        .entries()
        .map(|entry| (keep(entry.key()), keep(entry.value()), entry.is_hashed()))
        .collect();
    let entries = Entries::of(kept.iter().map(|(key, value, hashed)| {
        (key.as_bytes(), Value { bytes: value.as_bytes(), hashed: *hashed })
    }));
    (entries, truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::key::SensitiveHasher;
    use crate::limiter::redact::Sensitivity;
    use crate::limiter::request::Entry;

    fn entries_of(pairs: &[(&str, String)]) -> (String, bool) {
        let pairs: Vec<Entry<'_>> = pairs
            .iter()
            .map(|(key, value)| Entry { key: key.as_bytes(), value: value.as_bytes() })
            .collect();
        let hasher = SensitiveHasher::new(b"");
        let shown = ShownDescriptor::new(&pairs, Sensitivity::Nothing, &hasher);
        let (entries, truncated) = entries(shown);
        let texts: Vec<String> =
            entries.texts().map(|(key, value)| format!("{key}={},", value.text())).collect();
        (texts.concat(), truncated)
    }

    #[test]
    fn descriptor_is_escaped_and_cut() {
        let pairs = [("user", "al\nice".to_owned()), ("path", "/".to_owned())];
        assert_eq!(entries_of(&pairs), ("user=al%0Aice,path=/,".to_owned(), false));
        // Two bytes for each character, and one for each key: no byte is left for the last value.
        let long = [("k", "ü".repeat(1_000)), ("other", "value".to_owned())];
        let (text, truncated) = entries_of(&long);
        assert_eq!((text.len(), truncated), ("=,=,".len() + MAX_SHOWN_BYTES, true));
        assert!(text.ends_with("ü,o=,"), "{text}");
    }
}
