//! Places in YAML text, and what is noted of them.

/// The longest value quoted in a message, in characters.
const MAX_QUOTED: usize = 60;

/// A place among the sources: the file's index, line and column counted from 1; line 0 is the whole
/// file.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct At {
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A fault or a warning.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) at: At,
    pub(crate) message: String,
    /// A hint: the text to write instead.
    pub(crate) hint: Option<String>,
}

/// All that is noted of the sources, in the order it was found.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) faults: Vec<Note>,
    pub(crate) warnings: Vec<Note>,
}

impl Notes {
    pub(crate) fn fault(&mut self, at: At, message: impl Into<String>) {
        self.fault_with(at, message, None);
    }

    pub(crate) fn fault_with(
        &mut self,
        at: At,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.faults.push(Note { at, message: message.into(), hint: hint.into() });
    }

    pub(crate) fn warn(&mut self, at: At, message: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.warnings.push(Note { at, message: message.into(), hint });
    }
}

/// `text` in quotes, escaped, and cut when it is long.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}", format!("{}…", text.get(..end).unwrap_or_default())),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_escaped_and_cut() {
        assert_eq!(quote("a\"b"), "\"a\\\"b\"");
        assert_eq!(quote(&"é".repeat(500)).chars().count(), MAX_QUOTED + 3);
    }
}
