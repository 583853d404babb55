//! The settings of the logs.

use std::path::PathBuf;
use std::time::Duration;

use super::level::Level;
use crate::settings::{Reader, section, words};

section! {
    /// Logs, on standard error or in files.
    pub struct LogSettings in "log" {
        /// off, error, warn, info, debug, trace, or directives such as
        /// `info,tollgate::store=debug`.
        level: Level = "info",
        /// `auto` = text on a terminal, otherwise json; `text`; `json`.
        format: Format = "auto",
        /// File of the log; unset = standard error. Its directory must exist.
        file: Option<PathBuf> = "",
        /// File of the audit lines, which are then in no other log, and written at every level;
        /// unset = in the log, at `info`.
        audit_file: Option<PathBuf> = "",
        /// Log denials at every level; `false` = at `debug`.
        denied: bool = "false",
        /// File of the lines of denials, which are then in no other log; unset = in the log.
        denied_file: Option<PathBuf> = "",
        /// Most lines of denials in a second. Further ones are left out, and counted.
        denied_per_second: u32 = "10" in 1..=100_000,
        /// Size in bytes from which a file is rotated: it becomes `FILE.1`, and that `FILE.2`. 0 =
        /// not by size.
        max_bytes: usize = "104857600",
        /// Age from which a file is rotated, with its next line; unset = not by age.
        max_age: Option<Duration> = "",
        /// Rotated files of each log that are kept.
        keep: u32 = "5" in 0..=1_000,
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Format {
    /// Text if standard error is a terminal, otherwise JSON. JSON in files.
    #[default]
    Auto,
    /// One readable line per event; colours on a terminal, unless `NO_COLOR` is set.
    Text,
    /// One flat JSON object per line: `timestamp`, `level`, `message`, the event's fields,
    /// `target`.
    Json,
}

words!(Format { "auto" => Auto, "text" => Text, "json" => Json });

impl LogSettings {
    /// The rules that no type expresses.
    pub(crate) fn resolve(&self, reader: &mut Reader) {
        let files = [
            ("log.file", &self.file),
            ("log.audit_file", &self.audit_file),
            ("log.denied_file", &self.denied_file),
        ];
        for (index, (key, file)) in files.iter().enumerate() {
            let same = files.iter().take(index).find(|(_, other)| file.is_some() && other == file);
            if let Some((other, _)) = same {
                reader.refuse(key, format!("is the file of {other}; each log has its own"));
            }
        }
        if self.max_age.is_some_and(|age| age.is_zero()) {
            reader.refuse("log.max_age", "found 0s, expected a longer time");
        }
    }
}
