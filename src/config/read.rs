//! Takes settings out of the merged sources one by one, and remembers each value's origin and each fault.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use super::fault::Faults;
use super::section::Key;
use super::value::Setting;
use crate::limiter::mode::Mode;

/// The origin of a value that no source gave.
const DEFAULT: &str = "default";

/// A setting as it was resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Resolved {
    /// The value as YAML, secrets redacted.
    pub(super) shown: String,
    /// Where it was written.
    pub(super) origin: String,
}

/// The merged sources on their way to [`Settings`](super::Settings).
#[derive(Debug, Default)]
pub(super) struct Reader {
    merged: Map<String, Value>,
    /// What was read, by dotted key.
    pub(super) resolved: BTreeMap<String, Resolved>,
    /// What was refused.
    pub(super) faults: Faults,
}

impl Reader {
    /// A reader of `merged`, which nests sections as a file does.
    pub(super) fn new(merged: Map<String, Value>, faults: Faults) -> Self {
        Self { merged, resolved: BTreeMap::new(), faults }
    }

    /// Notes that the value of `dotted` was understood but cannot be.
    pub(super) fn refuse(&mut self, dotted: &str, message: impl Into<String>) {
        let origin = self.resolved.get(dotted).map_or(DEFAULT, |resolved| &resolved.origin);
        self.faults.add(origin, dotted, message);
    }

    /// Whether `dotted` has no fault so far.
    pub(super) fn is_sound(&self, dotted: &str) -> bool {
        self.faults.0.iter().all(|fault| fault.key != dotted)
    }

    /// Reads a setting that is one value. In place of one that is refused stands its default, so that the
    /// rules between settings can be checked all the same.
    pub(super) fn scalar<T: Setting>(&mut self, section: &str, name: &str) -> Option<T> {
        let (dotted, value) = self.value(section, name);
        let origin = value.origin().unwrap_or(DEFAULT).to_owned();
        let text = (value.kind != ValueKind::Nil).then(|| value.kind.to_string());
        let unset = text.as_ref().is_none_or(String::is_empty).then(T::unset).flatten();
        let parsed = unset.or_else(|| T::parse(text.as_ref()?));
        if let Some(parsed) = parsed {
            self.note(dotted, &parsed, origin);
            return Some(parsed);
        }
        self.faults.add(&origin, &dotted, refusal::<T>(text.as_deref()));
        T::unset().or_else(|| T::parse(Key::find(&dotted)?.default))
    }

    /// Reads a mapping to modes, those that are none left out.
    pub(super) fn mapping(&mut self, section: &str, name: &str) -> Option<BTreeMap<String, Mode>> {
        let (dotted, value) = self.value(section, name);
        let ValueKind::Table(table) = value.kind else { return None };
        let mut modes = BTreeMap::new();
        let mut first = DEFAULT.to_owned();
        for (domain, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
            let origin = value.origin().unwrap_or(DEFAULT);
            if modes.is_empty() {
                origin.clone_into(&mut first);
            }
            let text = value.kind.to_string();
            if let Some(mode) = Mode::parse(&text) {
                modes.insert(domain, mode);
            } else {
                let message = format!("found {text:?}, expected {}", Mode::EXPECTED);
                self.faults.add(origin, &format!("{dotted}.{domain}"), message);
            }
        }
        self.note(dotted, &modes, first);
        Some(modes)
    }

    fn value(&mut self, section: &str, name: &str) -> (String, Value) {
        if section.is_empty() {
            return (name.to_owned(), self.merged.remove(name).unwrap_or_default());
        }
        let value = match self.merged.get_mut(section).map(|section| &mut section.kind) {
            Some(ValueKind::Table(keys)) => keys.remove(name),
            _ => None,
        };
        (format!("{section}.{name}"), value.unwrap_or_default())
    }

    fn note<T: Setting>(&mut self, dotted: String, value: &T, origin: String) {
        self.resolved.insert(dotted, Resolved { shown: value.show(), origin });
    }
}

/// Why `text` is no `T`; no text is null.
fn refusal<T: Setting>(text: Option<&str>) -> String {
    let found = match text {
        _ if T::SECRET => String::new(),
        Some(text) => format!("found {text:?}, "),
        None => "found null, ".to_owned(),
    };
    let hint = text.and_then(T::hint).map(|hint| format!("; {hint}"));
    format!("{found}expected {}{}", T::EXPECTED, hint.unwrap_or_default())
}
