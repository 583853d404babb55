//! The layout part of the script and the page `docs/redis-script.md`, rendered from the declarations.
//!
//! `UPDATE_DOCS=1 cargo test --test store layout` writes both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tollgate::store::redis::script::layout::{
    ALGORITHMS, AMENDMENTS, BOUNDS, CHANGES, CLAIMS, COMMITS, ClaimHead, Constant, Cost, Field,
    Format, HEADS, KINDS, LIMITS, MARKS, OUTCOMES, ROLES, Record, STATES, SUFFIXES, StateHead,
    VERSIONS, WindowHits,
};
use tollgate::store::redis::script::{Parts, Script};

use super::redis_server::RedisServer;

mod drawing;
mod page;

/// The parts that are rendered; the others are written by hand.
const LAYOUT: &str = "10_layout.lua";
const FORMATS: &str = "12_formats.lua";
/// Both have the same layout.
const SCRIPTS: [Parts; 2] = [Script::DECIDE, Script::AMEND];
const HEADER: &str = "\
-- Constants, formats of struct.pack, lengths in bytes and positions of the layout.
--
-- Rendered from layout.rs by `UPDATE_DOCS=1 cargo test --test store layout`: change it there. It has what the other
-- parts name. docs/redis-script.md says what each field means.
";

const FORMATS_HEADER: &str = "\
-- Tables of the layout. They come after the short way, which would pay for them.
--
-- Rendered from layout.rs by `UPDATE_DOCS=1 cargo test --test store layout`: change it there.
";

#[test]
fn layout_parts_are_rendered_from_the_declarations() {
    let is_table = |(_, value): &(String, String)| value.starts_with('{');
    let (tables, constants): (Vec<_>, Vec<_>) = layout_lines().into_iter().partition(is_table);
    for (file, header, lines) in [(LAYOUT, HEADER, constants), (FORMATS, FORMATS_HEADER, tables)] {
        let path = root().join("src/store/redis/script/lua").join(file);
        let lines = lines.iter().map(|(name, value)| format!("local {name} = {value}\n"));
        let rendered = format!("{header}\n{}", lines.collect::<String>());
        assert_rendered(&path, &fs::read_to_string(&path).unwrap(), &rendered);
    }
}

#[test]
fn parts_of_the_scripts_are_the_files_of_their_directory_in_order() {
    let files = fs::read_dir(root().join("src/store/redis/script/lua")).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> =
        files.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect();
    files.sort();
    let mut parts = BTreeSet::new();
    for script in SCRIPTS {
        let names: Vec<_> = script.files.iter().map(|(name, _)| *name).collect();
        // The linter joins them by a pattern.
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(script.text, script.files.iter().map(|(_, text)| *text).collect::<String>());
        parts.extend(names);
    }
    assert_eq!(files, parts.into_iter().collect::<Vec<_>>());
}

#[test]
fn page_is_rendered_from_the_declarations() {
    let Some(server) = RedisServer::start() else { return };
    let path = root().join("docs/redis-script.md");
    let written = fs::read_to_string(&path).unwrap();
    let drawing = drawing::render(&mut server.connection());
    let rendered = [("layout", page::tables()), ("drawing", drawing)];
    let rendered = rendered.iter().fold(written.clone(), |text, (block, inside)| {
        let (begin, end) =
            (format!("<!-- {block}: rendered -->\n"), format!("<!-- {block}: end -->\n"));
        let (before, rest) = text.split_once(&begin).expect("begin of a block");
        let (_, after) = rest.split_once(&end).expect("end of a block");
        format!("{before}{begin}\n{inside}\n{end}{after}")
    });
    assert_rendered(&path, &written, &rendered);
}

fn assert_rendered(path: &Path, written: &str, rendered: &str) {
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, rendered).unwrap();
        return;
    }
    assert!(
        written == rendered,
        "{} differs from layout.rs; UPDATE_DOCS=1 cargo test --test store layout",
        path.display()
    );
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The constants of the layout that the other parts name, and their values.
fn layout_lines() -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let constants = [COMMITS, ROLES, ALGORITHMS, MARKS, KINDS, CHANGES, OUTCOMES, VERSIONS, BOUNDS];
    for Constant { name, value, .. } in constants.into_iter().flatten() {
        lines.push(((*name).into(), value.to_string()));
    }
    for head in HEADS {
        lines.push((head.lua.into(), quoted(&fields(head))));
    }
    lines.push(("CLAIM_HEAD".into(), quoted(&fields(&CLAIMS[0]))));
    lines.push(("CLAIM".into(), list(CLAIMS, 0, |claim| quoted(&fields(claim)[1..]))));
    lines.push(("CLAIM_SIZE".into(), list(CLAIMS, 0, |claim| size(&fields(claim)).to_string())));
    let [cost, hits] =
        [Cost::FIELDS, WindowHits::FIELDS].map(|fields| fields.iter().collect::<Vec<_>>());
    lines.push(("LONGEST_SINGLE".into(), (ClaimHead::SIZE + Cost::SIZE).to_string()));
    lines.push(("SINGLE_BODY".into(), (ClaimHead::SIZE + 1).to_string()));
    lines.push(("SINGLE_COST".into(), quoted(&cost)));
    lines.push(("SINGLE_HITS".into(), quoted(&hits)));
    for limit in LIMITS {
        lines.push((format!("{}_LIMIT", limit.lua), quoted(&fields(limit))));
    }
    for amendment in AMENDMENTS {
        lines.push((amendment.lua.into(), quoted(&fields(amendment))));
    }
    lines.push(("LIMIT".into(), list(LIMITS, 1, |limit| quoted(&fields(limit)[1..]))));
    lines.push(("ALWAYS".into(), "1".into()));
    for limit in LIMITS {
        lines.extend(positions(limit));
    }
    lines.push(("BODY".into(), (StateHead::SIZE + 1).to_string()));
    for state in STATES {
        let (lua, fields) = (state.lua, fields(state));
        lines.push((lua.into(), quoted(&fields)));
        lines.push((format!("{lua}_BODY"), quoted(&fields[StateHead::FIELDS.len()..])));
        lines.push((format!("{lua}_SIZE"), size(&fields).to_string()));
    }
    for suffix in SUFFIXES {
        lines.push((suffix.lua.into(), quoted(&fields(suffix))));
        lines.push((format!("{}_SIZE", suffix.lua), size(&fields(suffix)).to_string()));
    }
    let named = names_of_other_parts();
    lines.retain(|(name, _)| named.contains(&name.as_str()));
    lines
}

/// Words of the code, comments left out.
fn names_of_other_parts() -> Vec<&'static str> {
    let parts = SCRIPTS.iter().flat_map(|script| script.files);
    let parts = parts.filter(|(name, _)| ![LAYOUT, FORMATS].contains(name));
    let lines = parts.flat_map(|(_, text)| text.lines());
    let code = lines.map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
}

fn fields(format: &Format) -> Vec<&'static Field> {
    format.records.iter().flat_map(|(_, fields)| *fields).collect()
}

fn size(fields: &[&Field]) -> usize {
    fields.iter().map(|field| field.kind.size()).sum()
}

/// The format as `struct.pack` takes it.
fn quoted(fields: &[&Field]) -> String {
    let codes = fields.iter().flat_map(|field| field.kind.codes());
    format!("'<{}'", codes.copied().collect::<String>())
}

/// A table by number, from `first`.
fn list(formats: &[Format], first: usize, item: impl Fn(&Format) -> String) -> String {
    let items: Vec<_> = formats.iter().map(item).collect();
    let zero = if first == 0 { "[0] = " } else { "" };
    format!("{{ {zero}{} }}", items.join(", "))
}

/// The positions of the numbers of a limit, its algorithm left out.
fn positions(limit: &Format) -> impl Iterator<Item = (String, String)> {
    let names = fields(limit).into_iter().skip(1).flat_map(|field| {
        let name = format!("{}_{}", limit.lua, field.name.to_ascii_uppercase());
        let rest = format!("{name}_REST");
        [name, rest].into_iter().take(field.kind.codes().len())
    });
    names.enumerate().map(|(i, name)| (name, (i + 1).to_string()))
}
