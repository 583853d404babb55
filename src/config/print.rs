//! Settings as commented YAML: what `print-config` prints.

use std::collections::BTreeMap;

use super::Settings;
use crate::settings::{Key, Resolved, Section};

/// Every setting in the order of declaration, with its meaning above and its origin behind it.
pub(super) fn yaml(resolved: &BTreeMap<String, Resolved>) -> String {
    let sections = Settings::SECTIONS.iter().map(|section| section_yaml("", section, resolved));
    sections.collect::<Vec<_>>().join("\n")
}

fn section_yaml(outer: &str, section: &Section, resolved: &BTreeMap<String, Resolved>) -> String {
    let mut text = comment(outer, section.about);
    let mut indent = outer.to_owned();
    if !section.name.is_empty() {
        text.extend([outer, section.last_name(), ":\n"]);
        indent.push_str("  ");
    }
    let keys = section.keys.iter();
    let keys = keys.filter_map(|key| Some((key, resolved.get(&key.dotted(section))?)));
    keys.for_each(|(key, resolved)| text.push_str(&key_yaml(&indent, key, resolved)));
    for inner in section.inner {
        text.push_str(&section_yaml(&indent, inner, resolved));
    }
    text
}

fn key_yaml(indent: &str, key: &Key, resolved: &Resolved) -> String {
    let (name, shown, origin) = (key.name, &resolved.shown, &resolved.origin);
    // A file name may hold anything, a comment only one line.
    let origin = origin.replace(char::is_control, "?");
    format!("{}{indent}{name}: {shown} # {origin}\n", comment(indent, key.doc))
}

/// Doc lines, which begin with the blank that follows `///`, as comment lines.
fn comment(indent: &str, lines: &[&str]) -> String {
    let lines = lines.iter().flat_map(|line| [indent, "#", line, "\n"]);
    lines.collect()
}
