//! Settings as written: what each source says, by dotted key, before anything is checked but the keys.
//!
//! A key that no setting has is a fault of its source, also where a stronger source would hide it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;

use config::{Environment, Map, Source, Value, ValueKind};

use super::fault::Faults;
use super::load::Sources;
use super::section::{Key, Section};
use crate::yaml::{self, At, Data, Node, Notes};

/// The environment variables that are settings begin with this and the separator.
const PREFIX: &str = "TOLLGATE";
/// Between the prefix, the section and the key of a variable.
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
            faults.add(&origin(&file, note.at), "", format!("{}{hint}", note.message));
        }
        match root.map(|root| value(&file, &root).kind) {
            Some(ValueKind::Table(root)) => layer.root(root, faults),
            Some(ValueKind::Nil) | None => {}
            Some(_) => faults.add(&file, "", "expected a mapping of settings"),
        }
        layer
    }

    /// Takes the top of a file apart into its sections.
    fn root(&mut self, root: Map<String, Value>, faults: &mut Faults) {
        for (name, value) in sorted(root) {
            let Some(section) = Section::find(&name) else {
                self.top(&name, value, faults);
                continue;
            };
            let origin = value.origin().unwrap_or_default().to_owned();
            match value.kind {
                ValueKind::Table(keys) => {
                    for (key, value) in sorted(keys) {
                        self.take(&format!("{name}.{key}"), value, faults);
                    }
                }
                // A section whose keys are all commented out.
                ValueKind::Nil => {}
                _ => {
                    let keys = section.key_names();
                    let message = format!("expected a section with the keys {keys}");
                    faults.add(&origin, &name, message);
                }
            }
        }
    }

    /// Takes a key at the top of a file. A dotted one could contradict its section without either being last.
    fn top(&mut self, name: &str, value: Value, faults: &mut Faults) {
        match (Key::find(name), name.split_once('.')) {
            (Some(_), Some((section, key))) => {
                let message = format!("write section and key apart: {section}: {{{key}: ...}}");
                faults.add(value.origin().unwrap_or_default(), name, message);
            }
            _ => self.take(name, value, faults),
        }
    }

    /// The variables that are settings. A variable that is set to nothing counts as unset.
    pub(super) fn environment(sources: &Sources, faults: &mut Faults) -> Self {
        let mut layer = Self::default();
        let variables = own_variables(&sources.environment, faults);
        let collected = Environment::with_prefix(PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .ignore_empty(true)
            .source(Some(variables))
            .collect();
        match collected {
            Ok(values) => {
                for (key, value) in sorted(values) {
                    let value = Value::new(Some(&variable(&key)), value.kind);
                    layer.take(&key, value, faults);
                }
            }
            Err(error) => faults.add("environment", "", error.to_string()),
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
        match (Key::find(dotted), in_mapping()) {
            // A mapping whose entries are all commented out.
            (Some(key), _) if key.mapping && value.kind == ValueKind::Nil => {}
            (Some(key), _) if table == key.mapping && !list => {
                self.values.insert(dotted.to_owned(), value);
            }
            (Some(key), _) | (None, Some(key)) => {
                let place = if key.mapping { ", in the settings file" } else { "" };
                faults.add(&origin, dotted, format!("expected {}{place}", key.expected));
            }
            (None, None) => faults.unknown(&origin, dotted),
        }
    }
}

/// A node of a settings file. What it means is not resolved, except null, which text cannot say.
fn value(file: &str, node: &Node) -> Value {
    let kind = match &node.data {
        Data::Scalar { .. } if node.is_null() => ValueKind::Nil,
        Data::Scalar { text, .. } => ValueKind::String(text.to_string()),
        // No setting is a list, so its items do not matter.
        Data::List(_) => ValueKind::Array(Vec::new()),
        Data::Map(entries) => {
            let pairs = entries.iter().map(|at| (at.key.to_string(), value(file, &at.value)));
            ValueKind::Table(pairs.collect())
        }
    };
    Value::new(Some(&origin(file, node.at)), kind)
}

/// A place as values name their origin.
fn origin(file: &str, at: At) -> String {
    format!("{file}:{}:{}", at.line, at.column)
}

/// The entries by key, so that faults come in the same order each time.
fn sorted(map: Map<String, Value>) -> BTreeMap<String, Value> {
    map.into_iter().collect()
}

/// The variable that sets `dotted`.
pub(super) fn variable(dotted: &str) -> String {
    let key = dotted.replace('.', SEPARATOR).to_ascii_uppercase();
    format!("{PREFIX}{SEPARATOR}{key}")
}

/// Picks the variables that are settings, and notes those that were meant to be.
///
/// Others that begin with `TOLLGATE_` are no fault: Kubernetes sets `TOLLGATE_PORT` and the like for a
/// Service of that name.
fn own_variables(all: &[(OsString, OsString)], faults: &mut Faults) -> HashMap<String, String> {
    let mut own = HashMap::new();
    for (name, value) in all {
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(&format!("{PREFIX}{SEPARATOR}")) {
            if let Some(meant) = misspelt(name) {
                faults.add(name, "", format!("is not read; did you mean {meant}?"));
            }
            continue;
        }
        match value.to_str() {
            Some(value) => {
                own.insert(name.to_owned(), value.to_owned());
            }
            None => faults.add(name, "", "is not valid UTF-8"),
        }
    }
    own
}

/// The variable that differs from `name` in underscores only.
fn misspelt(name: &str) -> Option<String> {
    let bare = |name: &str| name.replace('_', "");
    let own = name.strip_prefix(PREFIX)?.starts_with('_');
    let mut variables = Key::all().map(|(section, key)| variable(&key.dotted(section)));
    variables.find(|variable| own && bare(variable) == bare(name))
}
