//! The tokens of operators, by name: the setting `admin.tokens`, and the file that may hold it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::settings::{Secret, Setting as _, mappings};
use crate::yaml::{self, Data, Notes};

/// The name of the token of the setting `admin.token`.
pub(crate) const OPERATOR: &str = "operator";

/// The longest name in bytes.
const MAX_NAME_BYTES: usize = 63;

mappings!(Secret, "a mapping from name to token");

/// Reads the tokens of a file: a YAML mapping from name to token.
pub(super) fn of_file(path: &Path) -> Result<BTreeMap<String, Secret>, String> {
    let file = path.display();
    let text = fs::read(path).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let mut notes = Notes::default();
    let root = yaml::parse(0, &text, &mut notes);
    if let Some(note) = notes.faults.iter().chain(&notes.warnings).next() {
        return Err(format!("{file}:{}:{}: {}", note.at.line, note.at.column, note.message));
    }
    let Some(Data::Map(entries)) = root.map(|root| root.data) else {
        return Err(format!("{file}: expected {}", BTreeMap::<String, Secret>::EXPECTED));
    };
    let mut tokens = BTreeMap::new();
    for entry in entries {
        let text = entry.value.text().filter(|_| !entry.value.is_null());
        let Some(token) = text.and_then(|text| Secret::parse(text)) else {
            let (line, column) = (entry.value.at.line, entry.value.at.column);
            let expected = Secret::EXPECTED;
            return Err(format!("{file}:{line}:{column}: {}: expected {expected}", entry.key));
        };
        tokens.insert(entry.key.to_string(), token);
    }
    Ok(tokens)
}

/// The fault of a token that a header cannot carry, or of a name that a log line cannot.
pub(super) fn fault(name: &str, token: &Secret) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
        return Some(format!(
            "found the name {name:?}, expected 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes, \
             underscores and @"
        ));
    }
    if !is_sendable(token) {
        return Some(format!("{name}: {NOT_SENDABLE}"));
    }
    None
}

/// The fault of a token that a header cannot carry.
pub(super) const NOT_SENDABLE: &str =
    "expected printable ASCII without blanks, as a header carries it";

/// Returns true if a header can carry the token.
pub(super) fn is_sendable(token: &Secret) -> bool {
    token.expose().bytes().all(|byte| byte.is_ascii_graphic())
}
