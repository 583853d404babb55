//! The nodes of one level against each other: duplicates, and nodes that are never reached.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::matcher::Slot;
use super::super::pattern::Pattern;
use super::super::report::Report;
use super::super::rule::{How, PathEntry};
use super::super::schema::Descriptor;
use super::network;
use crate::yaml::{At, quote};

#[derive(Default)]
pub(super) struct Siblings {
    /// The place at which each key and value was first written.
    places: HashMap<(Arc<str>, Option<Arc<str>>), At>,
    /// The patterns of each key so far.
    patterns: HashMap<Arc<str>, Vec<(Pattern, At)>>,
    /// The number of sensitive values of each key so far.
    sensitive: HashMap<Arc<str>, usize>,
}

impl Siblings {
    /// The values that the node takes; nothing when it has a fault or a sibling takes them already.
    pub(super) fn slot(
        &mut self,
        descriptor: &Descriptor,
        report: &mut Report<'_>,
    ) -> Option<Slot> {
        let given = descriptor.key.as_ref()?;
        let (at, key) = (given.key_at, given.value.as_ref()?);
        let value = match &descriptor.value.0 {
            None => None,
            Some(given) => Some(given.value.clone()?),
        };
        let id = (Arc::clone(key), value.clone());
        if let Some(first) = self.places.get(&id) {
            let value = value.map_or(String::new(), |value| format!(", value {}", quote(&value)));
            let message = format!("duplicate descriptor: key {}{value}", quote(key));
            report.fault_with(at, message, format!("first at {}", report.place(*first)));
            return None;
        }
        self.places.insert(id, at);
        if key.contains('*') {
            let message = format!("the \"*\" in key {} stands for itself", quote(key));
            report.warn(at, message, "wildcards work in values");
        }
        let Some(value) = value else { return Some(Slot::Any) };
        Some(match Pattern::new(&value) {
            None => {
                if let Some(advice) = network::advice(key, &value) {
                    let message = format!(
                        "no address matches {}: values are compared as text",
                        quote(&value)
                    );
                    report.warn(descriptor.value.at().unwrap_or(at), message, &advice);
                }
                Slot::Exact(value)
            }
            Some(pattern) => Slot::Pattern(self.add_pattern(key, pattern, at, report)),
        })
    }

    fn add_pattern(
        &mut self,
        key: &Arc<str>,
        pattern: Pattern,
        at: At,
        report: &mut Report<'_>,
    ) -> Pattern {
        let earlier = self.patterns.entry(Arc::clone(key)).or_default();
        if let Some((wider, first)) = earlier.iter().find(|(wider, _)| wider.covers(&pattern)) {
            let [value, wider] = [&pattern, wider].map(|pattern| quote(pattern.text()));
            let message = format!("value {value} is never reached: {wider} matches first");
            let hint = format!("move it before {wider} at {}", report.place(*first));
            report.warn(at, message, &hint);
        }
        earlier.push((pattern.clone(), at));
        pattern
    }

    /// The number of a sensitive value among those of its key, from 1, which stands for it where
    /// the value must not be shown; 0 for other entries.
    pub(super) fn ordinal(&mut self, entry: &PathEntry) -> usize {
        if !entry.sensitive || entry.how == How::Any {
            return 0;
        }
        let count = self.sensitive.entry(Arc::clone(&entry.key)).or_default();
        *count += 1;
        *count
    }

    /// Warns of nodes of a key alone, which come last, where a pattern of that key takes every
    /// value.
    pub(super) fn check(&self, report: &mut Report<'_>) {
        for (key, patterns) in &self.patterns {
            let alone = self.places.get(&(Arc::clone(key), None));
            let any = patterns.iter().find(|(pattern, _)| pattern.is_any());
            if let (Some(&at), Some((pattern, _))) = (alone, any) {
                let [key, pattern] = [key, pattern.text()].map(|text| quote(text));
                let message = format!("key {key} alone is never reached: {pattern} matches first");
                report.warn(at, message, "remove one of the two");
            }
        }
    }
}
