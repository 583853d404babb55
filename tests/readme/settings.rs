//! The tables of docs/settings.md, rendered from the declarations of the settings.
//!
//! `UPDATE_DOCS=1 cargo test --test readme settings` writes them.

use std::env;
use std::fmt::Write as _;
use std::fs;

use tollgate::config::{self, Key, Section, Sources};

use crate::markdown::{page, root};

const PAGE: &str = "docs/settings.md";
const BEGIN: &str = "<!-- settings: rendered from src/config -->\n";
const END: &str = "<!-- settings: end -->\n";

#[test]
fn tables_of_the_settings_are_those_of_the_code() {
    let text = page(PAGE).text;
    let (before, rest) = text.split_once(BEGIN).expect(BEGIN);
    let (written, after) = rest.split_once(END).expect(END);
    let rendered = Section::all().map(render).collect::<Vec<_>>().join("\n");
    let rendered = format!("\n{rendered}\n");
    if env::var_os("UPDATE_DOCS").is_some() {
        let text = format!("{before}{BEGIN}{rendered}{END}{after}");
        fs::write(root().join(PAGE), text).unwrap();
        return;
    }
    assert!(
        written == rendered,
        "{PAGE} differs from src/config; UPDATE_DOCS=1 cargo test --test readme settings"
    );
}

#[test]
fn variables_of_the_settings_are_read() {
    let single = Key::all().filter(|(_, key)| !key.mapping);
    let environment =
        single.map(|(section, key)| (variable(section, key).into(), key.default.into()));
    let sources = Sources { environment: environment.collect(), ..Sources::default() };
    // A variable that names no setting is a fault.
    let loaded = config::load(&sources).unwrap_or_else(|faults| panic!("{faults}"));
    let yaml = loaded.to_yaml();
    for (section, key) in Key::all().filter(|(_, key)| !key.mapping && !key.default.is_empty()) {
        let origin = variable(section, key);
        assert!(yaml.contains(&format!("# {origin}\n")), "no origin {origin} in\n{yaml}");
    }
}

fn render(section: &Section) -> String {
    let title = if section.name.is_empty() { "Top level" } else { section.name };
    let mut text = format!("### {title}\n\n{}\n\n", joined(section.about));
    text.push_str("| setting | variable | default | meaning |\n|---|---|---|---|\n");
    for key in section.keys {
        let variable =
            if key.mapping { "-".to_owned() } else { format!("`{}`", variable(section, key)) };
        let default = match key.default {
            "" => "unset".to_owned(),
            default => format!("`{default}`"),
        };
        let (name, meaning) = (key.dotted(section), joined(key.doc));
        writeln!(text, "| `{name}` | {variable} | {default} | {meaning} |").unwrap();
    }
    text
}

/// The environment variable of a setting.
pub fn variable(section: &Section, key: &Key) -> String {
    format!("TOLLGATE__{}", key.dotted(section).replace('.', "__").to_ascii_uppercase())
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
