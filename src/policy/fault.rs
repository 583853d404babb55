//! What is wrong with policies: faults and warnings, where they are, and how they print.
//!
//! Faults are collected, never thrown one by one: whoever fixes a policy sees all of them at once. This file
//! does not decide what is a fault.

use std::fmt;
use std::sync::Arc;

use super::source::Source;
use crate::yaml::{At, Note, Notes};

/// The widest part of a source line that is shown, in characters.
const SNIPPET: usize = 100;

/// Lines longer than this are written for machines and not shown, in bytes.
const LONGEST_LINE: usize = 16 << 10;

/// A place in a file. Prints as `file:line:column`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file as it was named to us.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 when the whole file is meant.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// A source line with the column that is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    /// The line; only the part around the column when it is long.
    pub text: String,
    /// The characters before the column.
    pub caret: usize,
}

impl Snippet {
    fn new(line: &str, column: u32) -> Self {
        let column = column.saturating_sub(1) as usize;
        let fits = line.chars().nth(SNIPPET).is_none();
        let start = if fits { 0 } else { column.saturating_sub(SNIPPET * 2 / 3) };
        let shown = line.chars().skip(start).take(SNIPPET);
        let text: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { text: text.trim_end().to_owned(), caret: column - start }
    }
}

/// Something in a policy that must be mended before it can be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong, with the offending value.
    pub message: String,
    /// The source line.
    pub snippet: Option<Snippet>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault of a whole file.
    pub(crate) fn of_file(file: Arc<str>, message: String) -> Self {
        let place = Place { file, line: 0, column: 0 };
        Self { place, message, snippet: None, hint: None }
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, label: &str) -> fmt::Result {
        write!(f, "{}: {label}{}", self.place, self.message)?;
        if let Some(Snippet { text, caret }) = &self.snippet {
            let line = self.place.line;
            let digits = line.to_string().len();
            write!(f, "\n  {line} | {text}\n  {:digits$} | {:caret$}^", "", "")?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, "")
    }
}

/// Something that works but is probably not meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning(pub Fault);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.print(f, "warning: ")
    }
}

/// Every fault of a set of files, at least one, ordered by file and place; and the warnings beside them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    faults: Vec<Fault>,
    warnings: Vec<Warning>,
}

impl Faults {
    /// `faults` is not empty.
    pub(crate) fn new(faults: Vec<Fault>, warnings: Vec<Warning>) -> Self {
        Self { faults, warnings }
    }

    /// These faults after `earlier` ones.
    pub(super) fn after(mut self, mut earlier: Vec<Fault>) -> Self {
        earlier.append(&mut self.faults);
        Self { faults: earlier, ..self }
    }

    /// The faults, ordered by file and place.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The warnings found until the faults stopped the search, in the same order.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

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
            let text = file.map(|source| String::from_utf8_lossy(&source.text)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            shown.extend(notes.iter().map(|note| {
                let line = (note.at.line as usize).checked_sub(1).and_then(|i| lines.get(i));
                Fault {
                    place: self.place(note.at),
                    message: note.message.clone(),
                    snippet: line
                        .filter(|line| line.len() <= LONGEST_LINE)
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
    fn snippet_of_a_long_line_shows_the_part_around_the_column() {
        let line = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let Snippet { text, caret } = Snippet::new(&line, 5_001);
        assert_eq!(text.chars().count(), SNIPPET);
        assert_eq!(text.chars().nth(caret), Some('X'));
    }

    #[test]
    fn line_for_machines_is_not_shown() {
        let sources = sources_of(&"a".repeat(LONGEST_LINE + 1));
        let mut report = Report::new(&sources);
        report.fault(At { file: 0, line: 1, column: 7 }, "wrong");
        assert_eq!(report.finish().unwrap_err().to_string(), "policies/a.yaml:1:7: wrong");
    }

    #[test]
    fn snippet_holds_no_control_characters() {
        assert_eq!(Snippet::new("\ta\u{1b}[31m", 2).text, " a [31m");
    }
}
