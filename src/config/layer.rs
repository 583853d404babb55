//! Settings as written: what each source says, by dotted key, before anything is checked but the
//! keys.
//!
//! A key that no setting has is a fault of its source, also where a stronger source would hide it.

use std::collections::BTreeMap;
use std::fs;

use config::{Map, Source, Value, ValueKind};

use super::keys;
use super::sources::Sources;
use crate::settings::{Faults, Key, Section, Word as _, dotted};
use crate::yaml::{self, Data, Entry, Node, Notes};

/// The beginning of the environment variables that are settings.
const PREFIX: &str = "TOLLGATE__";
/// Between the section and the key of a variable.
const SEPARATOR: &str = "__";

/// One source: its known settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

impl Layer {
    /// Gives the setting `dotted` a value. The keys here are those of this program.
    pub(super) fn put(&mut self, dotted: &str, origin: &str, value: impl Into<String>) {
        debug_assert!(Key::find(dotted).is_some(), "no setting {dotted}");
        let value = Value::new(Some(&origin.to_owned()), value.into());
        self.values.insert(dotted.to_owned(), value);
    }

    /// The value of the setting `dotted`, as text, with its origin.
    pub(super) fn get(&self, dotted: &str) -> Option<(String, String)> {
        let value = self.values.get(dotted)?;
        Some((value.kind.to_string(), value.origin().unwrap_or_default().to_owned()))
    }

    /// The declared defaults.
    pub(super) fn defaults() -> Self {
        let mut layer = Self::default();
        for (section, key) in Key::all() {
            let kind = if key.mapping {
                ValueKind::Table(Map::new())
            } else {
                ValueKind::String(key.default.to_owned())
            };
            layer.values.insert(key.dotted(section), Value::new(None, kind));
        }
        layer
    }

    /// The settings file, if there is one.
    pub(super) fn file(sources: &Sources, faults: &mut Faults) -> Self {
        let mut layer = Self::default();
        let Some(path) = &sources.file else { return layer };
        let file = path.display().to_string();
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                faults.add(&file, "", format!("cannot be read: {error}"));
                return layer;
            }
        };
        let mut notes = Notes::default();
        let root = yaml::parse(0, &text, &mut notes);
        // Nothing in a settings file is passed over, so a warning is a fault, too.
        for note in notes.faults.into_iter().chain(notes.warnings) {
            let hint = note.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            faults.add(
                &format!("{file}:{}:{}", note.at.line, note.at.column),
                "",
                format!("{}{hint}", note.message),
            );
        }
        match root.as_ref().map(|root| (root, &root.data)) {
            Some((_, Data::Map(entries))) => {
                for Entry { key, value, .. } in entries {
                    layer.top(key, &At { file: &file, node: value }, faults);
                }
            }
            Some((root, _)) if !root.is_null() => {
                faults.add(&file, "", "expected a mapping of settings");
            }
            Some(_) | None => {}
        }
        layer
    }

    /// Takes a section of a file, or a key outside of any.
    fn top(&mut self, name: &str, at: &At<'_>, faults: &mut Faults) {
        match (Section::find(name), name.split_once('.')) {
            (Some(section), None) => self.section(section, at, faults),
            // It could contradict its section without either being last.
            (found, Some((section, key))) if found.is_some() || Key::find(name).is_some() => {
                let message = format!("write section and key apart: {section}: {{{key}: ...}}");
                faults.add(&at.origin(), name, message);
            }
            _ => self.take(name, at.value(), faults),
        }
    }

    /// Takes the keys of a section of a file, and those of the sections inside it.
    fn section(&mut self, section: &Section, at: &At<'_>, faults: &mut Faults) {
        match &at.node.data {
            Data::Map(entries) => {
                for Entry { key, value, .. } in entries {
                    let (dotted, inside) = (dotted(section.name, key), At { node: value, ..*at });
                    match Section::find(&dotted) {
                        Some(inner) => self.section(inner, &inside, faults),
                        None => self.take(&dotted, inside.value(), faults),
                    }
                }
            }
            // A section whose keys are all commented out.
            _ if at.node.is_null() => {}
            _ => {
                let message = format!("expected a section with the keys {}", section.key_names());
                faults.add(&at.origin(), section.name, message);
            }
        }
    }

    /// The variables that are settings, by name. A variable that is set to nothing counts as unset.
    ///
    /// Others that begin with `TOLLGATE_` are no fault: Kubernetes sets `TOLLGATE_PORT` and the
    /// like for a Service of that name. `TOLLGATE_ADMIN_TOKEN` is read by `tollgate admin`; it is
    /// no fault in the container of a server that has a token.
    pub(super) fn environment(sources: &Sources, faults: &mut Faults) -> Self {
        let mut layer = Self::default();
        let names =
            sources.environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
        let variables = names.collect::<BTreeMap<_, _>>();
        let token = variable("admin.token");
        let has_admin_token = variables.keys().any(|name| name.starts_with(&token));
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(PREFIX) else {
                let of_admin = name == "TOLLGATE_ADMIN_TOKEN" && has_admin_token;
                if let Some(meant) = misspelt(name).filter(|_| !of_admin) {
                    faults.add(name, "", format!("is not read; did you mean {meant}?"));
                }
                continue;
            };
            match value.to_str() {
                Some("") => {}
                Some(value) => {
                    let key = key.to_ascii_lowercase().replace(SEPARATOR, ".");
                    layer.take(&key, Value::new(Some(&name.to_owned()), value), faults);
                }
                None => faults.add(name, "", "is not valid UTF-8"),
            }
        }
        layer
    }

    /// The flags: `--set` in order, then the flags that have a name of their own.
    pub(super) fn flags(sources: &Sources, faults: &mut Faults) -> Self {
        let mut layer = Self::default();
        for pair in &sources.set {
            match pair.expose().split_once('=') {
                Some((key, value)) => layer.flag("--set", key.trim(), value, faults),
                // The text may hold a secret, so it is not repeated.
                None => faults.add("--set", "", "expected KEY=VALUE, such as grpc.cores=4"),
            }
        }
        if let Some(compat) = sources.compat {
            layer.flag("--compat", "compat", compat.word(), faults);
        }
        if let Some(path) = &sources.policies {
            layer.flag("--policies", "policies.path", path, faults);
        }
        if let Some(url) = &sources.redis_url {
            layer.flag("--redis-url", "redis.url", url.expose(), faults);
        }
        layer
    }

    fn flag(&mut self, flag: &str, key: &str, value: &str, faults: &mut Faults) {
        self.take(key, Value::new(Some(&flag.to_owned()), value), faults);
    }

    /// Keeps the value of a known key.
    fn take(&mut self, dotted: &str, value: Value, faults: &mut Faults) {
        let origin = value.origin().unwrap_or_default().to_owned();
        let in_mapping = || {
            let (parent, _) = dotted.split_once('.')?;
            Key::find(parent).filter(|key| key.mapping)
        };
        let table = matches!(value.kind, ValueKind::Table(_));
        let list = matches!(value.kind, ValueKind::Array(_));
        let value = match Key::find(dotted) {
            Some(key) if key.list => joined(value),
            _ => value,
        };
        match (Key::find(dotted), in_mapping()) {
            // A mapping whose entries are all commented out.
            (Some(key), _) if key.mapping && value.kind == ValueKind::Nil => {}
            (Some(key), _) if table == key.mapping && (!list || key.list) => {
                self.values.insert(dotted.to_owned(), value);
            }
            (Some(key), _) | (None, Some(key)) => {
                let place = if key.mapping { ", in the settings file" } else { "" };
                faults.add(&origin, dotted, format!("expected {}{place}", key.expected));
            }
            (None, None) => keys::unknown(faults, &origin, dotted),
        }
    }
}

/// A node of a settings file.
struct At<'a> {
    file: &'a str,
    node: &'a Node,
}

impl At<'_> {
    /// The place as values name their origin.
    fn origin(&self) -> String {
        format!("{}:{}:{}", self.file, self.node.at.line, self.node.at.column)
    }

    /// The node as a value. Its meaning is not resolved, except for null, which text cannot
    /// express.
    fn value(&self) -> Value {
        let kind = match &self.node.data {
            Data::Scalar { .. } if self.node.is_null() => ValueKind::Nil,
            Data::Scalar { text, .. } => ValueKind::String(text.to_string()),
            Data::List(items) => {
                let inside = |node| At { node, ..*self }.value();
                ValueKind::Array(items.iter().map(inside).collect())
            }
            Data::Map(entries) => {
                let inside = |node| At { node, ..*self }.value();
                let pairs = entries.iter().map(|at| (at.key.to_string(), inside(&at.value)));
                ValueKind::Table(pairs.collect())
            }
        };
        Value::new(Some(&self.origin()), kind)
    }
}

/// A list as its items by commas, the form that it has in variables and flags. An item that is no
/// scalar becomes one that no list of settings takes.
fn joined(value: Value) -> Value {
    let origin = value.origin().map(ToOwned::to_owned);
    match value.kind {
        ValueKind::Array(items) => {
            let items = items.iter().map(|item| item.kind.to_string()).collect::<Vec<_>>();
            Value::new(origin.as_ref(), items.join(","))
        }
        kind => Value::new(origin.as_ref(), kind),
    }
}

/// The variable that sets `dotted`.
pub(super) fn variable(dotted: &str) -> String {
    let key = dotted.replace('.', SEPARATOR).to_ascii_uppercase();
    format!("{PREFIX}{key}")
}

/// The variable that differs from `name` in underscores only.
fn misspelt(name: &str) -> Option<String> {
    let bare = |name: &str| name.replace('_', "");
    let own = name.starts_with("TOLLGATE_");
    let mut variables = Key::all().map(|(section, key)| variable(&key.dotted(section)));
    variables.find(|variable| own && bare(variable) == bare(name))
}
