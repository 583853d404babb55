//! Faults and warnings of policies, with their places, and how they print.
//!
//! Faults are collected, so that the author of a policy sees all of them at once. `compile` and
//! `schema` decide what is a fault.

use std::fmt;
use std::sync::Arc;

/// The widest part of a source line that is shown, in characters.
const SNIPPET: usize = 100;

/// Lines longer than this are written for machines and not shown, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;

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
    pub(super) fn new(line: &str, column: u32) -> Self {
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
    /// The place.
    pub place: Place,
    /// The fault, with the offending value.
    pub message: String,
    /// The source line.
    pub snippet: Option<Snippet>,
    /// A hint: the text to write instead.
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

/// Every fault of a set of files, at least one, ordered by file and place; and the warnings beside
/// them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippet_of_a_long_line_shows_the_part_around_the_column() {
        let line = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let Snippet { text, caret } = Snippet::new(&line, 5_001);
        assert_eq!(text.chars().count(), SNIPPET);
        assert_eq!(text.chars().nth(caret), Some('X'));
    }

    #[test]
    fn snippet_holds_no_control_characters() {
        assert_eq!(Snippet::new("\ta\u{1b}[31m", 2).text, " a [31m");
    }
}
