//! Takes settings out of the merged sources one by one, and remembers each value's origin and each
//! fault.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

use config::{Map, Value, ValueKind};

use super::fault::Faults;
use super::section::dotted;

/// The origin of a value that no source gave.
const DEFAULT: &str = "default";

/// A setting as it was resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Resolved {
    /// The value as YAML, secrets redacted.
    pub(crate) shown: String,
    /// The place at which it was written.
    pub(crate) origin: String,
}

/// A type that a setting may have.
pub(crate) trait Setting: Sized {
    /// The expected values, to follow "expected".
    const EXPECTED: &'static str;
    /// True if a fault must not repeat the value.
    const SECRET: bool = false;
    /// True if it is a mapping rather than a scalar.
    const MAPPING: bool = false;
    /// True if it is a list of scalars.
    const LIST: bool = false;

    /// The value that `text` means.
    fn parse(text: &str) -> Option<Self>;

    /// The value as YAML, such that [`parse`](Self::parse) would give it again; secrets redacted.
    fn show(&self) -> String;

    /// A hint when `text` was refused.
    fn hint(_text: &str) -> Option<String> {
        None
    }

    /// The meaning of a null or an empty value; none: it is a value like any other.
    fn unset() -> Option<Self> {
        None
    }

    /// The expected values, for a fault about one that is less than `least`.
    fn at_least(least: &Self) -> String {
        format!("at least {}", least.show())
    }

    /// Takes the setting from the merged sources.
    fn read(reader: &mut Reader, section: &str, name: &str, default: &str) -> Option<Self> {
        reader.scalar(section, name, default)
    }
}

/// The merged sources on their way to the sections.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    merged: Map<String, Value>,
    /// The values that were read, by dotted key.
    pub(crate) resolved: BTreeMap<String, Resolved>,
    /// The faults.
    pub(crate) faults: Faults,
}

impl Reader {
    /// A reader of `merged`, which nests sections as a file does.
    pub(crate) fn new(merged: Map<String, Value>, faults: Faults) -> Self {
        Self { merged, resolved: BTreeMap::new(), faults }
    }

    /// Notes that the value of `dotted` was understood but cannot be.
    pub(crate) fn refuse(&mut self, dotted: &str, message: impl Into<String>) {
        let origin = self.resolved.get(dotted).map_or(DEFAULT, |resolved| &resolved.origin);
        self.faults.add(origin, dotted, message);
    }

    /// True if `dotted` has no fault so far.
    pub(crate) fn is_sound(&self, dotted: &str) -> bool {
        self.faults.0.iter().all(|fault| fault.key != dotted)
    }

    /// Reads a setting that is one value. In place of one that is refused stands its default, so
    /// that the rules between settings can be checked all the same.
    pub(crate) fn scalar<T: Setting>(
        &mut self,
        section: &str,
        name: &str,
        default: &str,
    ) -> Option<T> {
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
        T::unset().or_else(|| T::parse(default))
    }

    /// Reads a mapping from names to values; those that are refused are left out.
    pub(crate) fn mapping<T: Setting>(
        &mut self,
        section: &str,
        name: &str,
    ) -> Option<BTreeMap<String, T>>
    where
        BTreeMap<String, T>: Setting,
    {
        let (dotted, value) = self.value(section, name);
        let ValueKind::Table(table) = value.kind else { return None };
        let mut values = BTreeMap::new();
        let mut first = DEFAULT.to_owned();
        for (name, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
            let origin = value.origin().unwrap_or(DEFAULT);
            if values.is_empty() {
                origin.clone_into(&mut first);
            }
            let text = value.kind.to_string();
            match T::parse(&text) {
                Some(value) => {
                    values.insert(name, value);
                }
                None => {
                    self.faults.add(origin, &format!("{dotted}.{name}"), refusal::<T>(Some(&text)));
                }
            }
        }
        self.note(dotted, &values, first);
        Some(values)
    }

    /// Refuses a value outside of `range`.
    pub(crate) fn bound<T: Setting + PartialOrd>(
        &mut self,
        section: &str,
        name: &str,
        value: Option<&T>,
        range: impl RangeBounds<T>,
    ) {
        let Some(value) = value.filter(|value| !range.contains(value)) else { return };
        let expected = match (range.start_bound(), range.end_bound()) {
            (Bound::Included(least), _) if value < least => T::at_least(least),
            (_, Bound::Included(most)) => format!("at most {}", most.show()),
            _ => T::EXPECTED.to_owned(),
        };
        let message = format!("found {}, expected {expected}", value.show());
        self.refuse(&dotted(section, name), message);
    }

    /// Reads the value of `dotted` from the file that `dotted`_file names, without the line end
    /// that editors add.
    pub(crate) fn file<T: Setting>(
        &mut self,
        dotted: &str,
        value: &mut Option<T>,
        path: Option<&Path>,
    ) {
        let Some(path) = path else { return };
        let read = if value.is_some() {
            Err(format!("{dotted} is set too; set one of them"))
        } else {
            secret::<T>(path)
        };
        match read {
            Ok(read) => *value = Some(read),
            Err(message) => self.refuse(&format!("{dotted}_file"), message),
        }
    }

    fn value(&mut self, section: &str, name: &str) -> (String, Value) {
        let mut parts = section.split('.').filter(|part| !part.is_empty());
        let keys = parts.try_fold(&mut self.merged, |keys, part| {
            match keys.get_mut(part).map(|section| &mut section.kind) {
                Some(ValueKind::Table(keys)) => Some(keys),
                _ => None,
            }
        });
        let value = keys.and_then(|keys| keys.remove(name)).unwrap_or_default();
        (dotted(section, name), value)
    }

    fn note<T: Setting>(&mut self, dotted: String, value: &T, origin: String) {
        self.resolved.insert(dotted, Resolved { shown: value.show(), origin });
    }
}

fn secret<T: Setting>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    T::parse(text).ok_or_else(|| format!("{}: {}", path.display(), refusal::<T>(Some(text))))
}

/// The fault of `text`, which is no `T`; no text is null.
fn refusal<T: Setting>(text: Option<&str>) -> String {
    let found = match text {
        _ if T::SECRET => String::new(),
        Some(text) => format!("found {text:?}, "),
        None => "found null, ".to_owned(),
    };
    let hint = text.and_then(T::hint).map(|hint| format!("; {hint}"));
    format!("{found}expected {}{}", T::EXPECTED, hint.unwrap_or_default())
}
