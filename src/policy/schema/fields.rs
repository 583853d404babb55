//! Reading a mapping key by key: known keys, right types, and a suggestion where either is wrong.
//!
//! `compile` checks the meaning of the keys together.

use std::sync::Arc;
use std::time::Duration;

use super::super::report::Report;
use super::super::words::nearest;
use crate::settings::Word;
use crate::yaml::{At, Data, Entry, Node, quote};

/// A key that was written.
#[derive(Clone, Debug)]
pub(in super::super) struct Given<T> {
    /// The place of the key.
    pub(in super::super) key_at: At,
    /// The place of the value.
    pub(in super::super) at: At,
    /// The value; none: it was wrong, and that has been said.
    pub(in super::super) value: Option<T>,
}

/// A key that may have been left out.
#[derive(Clone, Debug)]
pub(in super::super) struct Field<T>(pub(in super::super) Option<Given<T>>);

impl<T> Field<T> {
    pub(super) const ABSENT: Self = Self(None);

    pub(in super::super) fn key_at(&self) -> Option<At> {
        self.0.as_ref().map(|given| given.key_at)
    }

    pub(in super::super) fn at(&self) -> Option<At> {
        self.0.as_ref().map(|given| given.at)
    }
}

impl<T: Clone> Field<T> {
    /// The value, if it was written, and written well.
    pub(in super::super) fn good(&self) -> Option<T> {
        self.0.as_ref().and_then(|given| given.value.clone())
    }

    /// The value, or the default where nothing was written; nothing where it was written badly.
    pub(in super::super) fn or(&self, default: T) -> Option<T> {
        self.0.as_ref().map_or(Some(default), |given| given.value.clone())
    }
}

/// The keys of one kind of mapping, and where else a key may belong.
pub(in super::super) struct Kind {
    /// With its article.
    pub(in super::super) name: &'static str,
    pub(in super::super) keys: &'static [&'static str],
    /// (keys, where they belong instead)
    pub(in super::super) elsewhere: &'static [(&'static [&'static str], &'static str)],
}

/// The keys that envoyproxy/ratelimit passes over in the wrong place.
///
/// Source: `validKeys` of its `src/config/config_impl.go`.
const ELSEWHERE: [&str; 16] = [
    "descriptors",
    "detailed_metric",
    "domain",
    "key",
    "metadata",
    "name",
    "quota_mode",
    "rate_limit",
    "replaces",
    "requests_per_unit",
    "shadow_mode",
    "share_threshold",
    "unit",
    "unlimited",
    "value",
    "value_to_metric",
];

/// A mapping whose keys are known.
pub(in super::super) struct Fields<'n> {
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The keys of `node`. Unknown ones are faults.
    pub(in super::super) fn open(
        node: &'n Node,
        kind: &Kind,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Data::Map(entries) = &node.data else {
            let message = format!("{} must be a mapping, found {}", kind.name, node.describe());
            report.fault_with(node.at, message, known(kind));
            return None;
        };
        for entry in entries.iter().filter(|entry| !kind.keys.contains(&&*entry.key)) {
            let message = format!("unknown key {} in {}", quote(&entry.key), kind.name);
            if ELSEWHERE.contains(&&*entry.key) {
                report.lenient_fault(entry.key_at, message, advice(&entry.key, kind));
            } else {
                report.fault_with(entry.key_at, message, advice(&entry.key, kind));
            }
        }
        Some(Self { entries })
    }

    /// The entry of a key, unless its value is nothing.
    pub(in super::super) fn get(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| &*entry.key == key && !entry.value.is_null())
    }

    pub(in super::super) fn text(&self, key: &str, report: &mut Report<'_>) -> Field<Arc<str>> {
        self.read(key, report, "text", |node| node.text().cloned(), |_| None)
    }

    pub(super) fn flag(&self, key: &str, report: &mut Report<'_>) -> Field<bool> {
        let hint = |node: &Node| {
            let unquoted = node.text().filter(|text| matches!(&***text, "true" | "false"));
            unquoted.map(|_| "remove the quotes".to_owned())
        };
        self.read(key, report, "true or false", Node::flag, hint)
    }

    /// A whole number of at most `most`.
    pub(super) fn whole(&self, key: &str, most: u64, report: &mut Report<'_>) -> Field<u64> {
        let expected = format!("a whole number from 0 to {most}");
        let read = |node: &Node| node.whole().filter(|&number| number <= most);
        self.read(key, report, &expected, read, number_hint)
    }

    pub(super) fn count(&self, key: &str, report: &mut Report<'_>) -> Field<u32> {
        let short = |given: Given<u64>| Given {
            key_at: given.key_at,
            at: given.at,
            value: given.value.and_then(|number| number.try_into().ok()),
        };
        Field(self.whole(key, u32::MAX.into(), report).0.map(short))
    }

    /// Any number that is not negative.
    pub(super) fn number(&self, key: &str, report: &mut Report<'_>) -> Field<f64> {
        let read = |node: &Node| {
            let number: f64 = node.plain()?.parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        };
        self.read(key, report, "a number such as 0.1", read, number_hint)
    }

    /// A time with its unit.
    pub(super) fn time(&self, key: &str, report: &mut Report<'_>) -> Field<Duration> {
        let read = |node: &Node| humantime::parse_duration(node.text()?).ok();
        let hint = |node: &Node| {
            let bare = node.text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            bare.map(|number| format!("write {number}ms"))
        };
        self.read(key, report, "a time with its unit, such as 50ms", read, hint)
    }

    /// One of a set of words. Empty text is as good as nothing.
    pub(super) fn word<T: Word>(&self, key: &str, report: &mut Report<'_>) -> Field<T> {
        let is_empty = |entry: &Entry| entry.value.text().is_some_and(|text| text.is_empty());
        if self.get(key).is_some_and(is_empty) {
            return Field::ABSENT;
        }
        let names = T::names();
        let hint = |node: &Node| node.text().and_then(|text| suggest(text, &names));
        let expected = format!("one of {}", names.join(", "));
        self.read(key, report, &expected, |node| T::from_word(node.text()?), hint)
    }

    /// The items of a list; none when it was left out.
    pub(in super::super) fn list(&self, key: &str, report: &mut Report<'_>) -> Field<&'n [Node]> {
        let Some(Entry { key_at, value: node, .. }) = self.get(key) else { return Field::ABSENT };
        let mut given = Given { key_at: *key_at, at: node.at, value: None };
        if let Data::List(items) = &node.data {
            given.value = Some(items.as_slice());
        } else {
            let hint = "begin each item with \"- \"".to_owned();
            let message = format!("{key} must be a list, found {}", node.describe());
            report.fault_with(node.at, message, hint);
        }
        Field(Some(given))
    }

    pub(super) fn read<T>(
        &self,
        key: &str,
        report: &mut Report<'_>,
        expected: &str,
        read: impl FnOnce(&Node) -> Option<T>,
        hint: impl FnOnce(&Node) -> Option<String>,
    ) -> Field<T> {
        let Some(Entry { key_at, value: node, .. }) = self.get(key) else { return Field::ABSENT };
        let value = read(node);
        if value.is_none() {
            let message = format!("{key} must be {expected}, found {}", node.describe());
            report.fault_with(node.at, message, hint(node));
        }
        Field(Some(Given { key_at: *key_at, at: node.at, value }))
    }
}

fn number_hint(node: &Node) -> Option<String> {
    let text = node.text()?;
    let hint = if node.plain().is_none() && text.chars().all(|c| c.is_ascii_digit()) {
        "remove the quotes"
    } else if text.len() > 1 && text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit()) {
        "a leading zero may mean octal: remove it, or write 0o"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn advice(key: &str, kind: &Kind) -> String {
    let home = kind.elsewhere.iter().find(|(keys, _)| keys.contains(&key));
    home.map(|(_, place)| format!("{} belongs {place}", quote(key)))
        .or_else(|| suggest(key, kind.keys))
        .unwrap_or_else(|| known(kind))
}

fn known(kind: &Kind) -> String {
    match kind.keys {
        [key] => format!("write {{{key}: ..}}"),
        keys => format!("the keys of {} are {}", kind.name, keys.join(", ")),
    }
}

/// "did you mean": the word that was meant, in the spelling of this format.
fn suggest(word: &str, candidates: &[&str]) -> Option<String> {
    nearest(&word.to_lowercase().replace('-', "_"), candidates.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_suggested_and_far_ones_not() {
        let keys = ["rate_limit", "requests_per_unit", "unit", "key"];
        for (word, expected) in [
            ("ratelimit", Some("rate_limit")),
            ("Rate-Limit", Some("rate_limit")),
            ("requests_per_minute", Some("requests_per_unit")),
            ("uint", Some("unit")),
            ("kye", Some("key")),
            ("elephant", None),
            ("", None),
        ] {
            let expected = expected.map(|key| format!("did you mean {key:?}?"));
            assert_eq!(suggest(word, &keys), expected, "{word}");
        }
    }
}
