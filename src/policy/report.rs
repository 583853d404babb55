//! The collector of faults and warnings while policies are compiled.

use std::sync::Arc;

use super::fault::{Fault, Faults, MAX_LINE_BYTES, Place, Snippet, Warning};
use super::source::Source;
use crate::yaml::{At, Note, Notes, counted_lines};

/// Collects faults and warnings while sources are compiled.
pub(super) struct Report<'a> {
    sources: &'a [Source],
    notes: Notes,
}

impl<'a> Report<'a> {
    pub(super) fn new(sources: &'a [Source]) -> Self {
        Self { sources, notes: Notes::default() }
    }

    /// The notes, for the reader of YAML.
    pub(super) fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    pub(super) fn fault(&mut self, at: At, message: impl Into<String>) {
        self.notes.fault(at, message);
    }

    pub(super) fn fault_with(
        &mut self,
        at: At,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.notes.fault_with(at, message, hint);
    }

    /// A fault or, in a source that is read as others would, a warning. Returns true for a warning.
    pub(super) fn lenient_fault(
        &mut self,
        at: At,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) -> bool {
        let source = self.sources.get(at.file as usize);
        let lenient = source.is_some_and(|source| source.lenient);
        if lenient {
            self.notes.warn(at, message, hint.into().as_deref().unwrap_or_default());
        } else {
            self.notes.fault_with(at, message, hint);
        }
        lenient
    }

    /// True if the source of `at` is no text that somebody wrote.
    pub(super) fn is_generated(&self, at: At) -> bool {
        self.sources.get(at.file as usize).is_some_and(|source| source.draft.is_some())
    }

    pub(super) fn warn(&mut self, at: At, message: impl Into<String>, hint: &str) {
        self.notes.warn(at, message, hint);
    }

    pub(super) fn has_faults(&self) -> bool {
        !self.notes.faults.is_empty()
    }

    pub(super) fn place(&self, at: At) -> Place {
        let file = self.sources.get(at.file as usize).map(|source| Arc::clone(&source.name));
        Place { file: file.unwrap_or_default(), line: at.line, column: at.column }
    }

    /// The reverse of [`place`](Self::place).
    pub(super) fn at(&self, place: &Place) -> At {
        let file = self.sources.iter().position(|source| source.name == place.file);
        At { file: file.unwrap_or_default() as u32, line: place.line, column: place.column }
    }

    /// The warnings, or the faults if there are any.
    pub(super) fn finish(mut self) -> Result<Vec<Warning>, Faults> {
        let Notes { faults, warnings } = std::mem::take(&mut self.notes);
        let warnings = self.show(warnings).into_iter().map(Warning).collect();
        if faults.is_empty() {
            return Ok(warnings);
        }
        Err(Faults::new(self.show(faults), warnings))
    }

    /// Sorts notes and adds their source lines. What an alias repeats is said once.
    fn show(&self, mut notes: Vec<Note>) -> Vec<Fault> {
        notes.sort_by_key(|note| note.at);
        let mut seen = hashbrown::HashSet::new();
        notes.retain(|note| seen.insert((note.at, note.message.clone())));
        let mut shown = Vec::with_capacity(notes.len());
        for notes in notes.chunk_by(|a, b| a.at.file == b.at.file) {
            let file = notes.first().and_then(|note| self.sources.get(note.at.file as usize));
            let text = file.map(|source| counted_lines(&source.text)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            shown.extend(notes.iter().map(|note| {
                let line = (note.at.line as usize).checked_sub(1).and_then(|i| lines.get(i));
                Fault {
                    place: self.place(note.at),
                    message: note.message.clone(),
                    snippet: line
                        .filter(|line| line.len() <= MAX_LINE_BYTES)
                        .map(|line| Snippet::new(line, note.at.column)),
                    hint: note.hint.clone(),
                }
            }));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources_of(text: &str) -> [Source; 1] {
        [Source::new("policies/a.yaml", text)]
    }

    #[test]
    fn fault_prints_place_line_caret_and_hint() {
        let sources = sources_of("domain: d\ndescriptors:\n  - ratelimit: {}\n");
        let mut report = Report::new(&sources);
        let at = At { file: 0, line: 3, column: 5 };
        let hint = "did you mean \"rate_limit\"?".to_owned();
        report.fault_with(at, "unknown key \"ratelimit\"", hint);
        assert_eq!(
            report.finish().unwrap_err().to_string(),
            "policies/a.yaml:3:5: unknown key \"ratelimit\"\n  3 |   - ratelimit: {}\n    |     ^\n  \
             hint: did you mean \"rate_limit\"?"
        );
    }

    #[test]
    fn lines_are_those_of_yaml_without_a_byte_order_mark() {
        let sources = sources_of("\u{feff}a: 1\rb: 2\r\nc: 3\n");
        let mut report = Report::new(&sources);
        for (line, column) in [(1, 1), (2, 4), (3, 4)] {
            report.fault(At { file: 0, line, column }, "wrong");
        }
        let faults = report.finish().unwrap_err();
        let shown = faults.faults().iter().map(|fault| {
            let Snippet { text, caret } = fault.snippet.as_ref().unwrap();
            text.chars().skip(*caret).collect::<String>()
        });
        assert_eq!(shown.collect::<Vec<_>>(), ["a: 1", "2", "3"]);
    }

    #[test]
    fn faults_are_sorted_and_said_once() {
        let sources = sources_of("a\nb\n");
        let mut report = Report::new(&sources);
        for (line, message) in [(2, "second"), (1, "first"), (2, "second")] {
            report.fault(At { file: 0, line, column: 1 }, message);
        }
        let faults = report.finish().unwrap_err();
        let messages: Vec<_> = faults.faults().iter().map(|fault| &*fault.message).collect();
        assert_eq!(messages, ["first", "second"]);
    }

    #[test]
    fn line_for_machines_is_not_shown() {
        let sources = sources_of(&"a".repeat(MAX_LINE_BYTES + 1));
        let mut report = Report::new(&sources);
        report.fault(At { file: 0, line: 1, column: 7 }, "wrong");
        assert_eq!(report.finish().unwrap_err().to_string(), "policies/a.yaml:1:7: wrong");
    }
}
