//! The report of a check, for people and as JSON.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::policy::{Compiled, Failed, Fault, Faults, Warning};

use crate::cli::descriptor::{self, Entry};

/// The most faults, warnings and failed expectations that are shown, each.
const SHOWN: usize = 20;

/// The outcome of expectations.
#[derive(Debug)]
pub(super) struct Checked {
    /// The number of expectations.
    pub(super) count: usize,
    /// Those that are not met.
    pub(super) failures: Vec<Failed>,
}

/// The findings of a check.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// The number of files.
    pub(super) files: usize,
    /// The compiled set, or its faults.
    pub(super) outcome: &'a Result<Compiled, Faults>,
    /// None: there are no expectations, or faults forbid to check them.
    pub(super) checked: Option<&'a Checked>,
}

impl Report<'_> {
    /// True without a fault and without a failed expectation.
    pub(super) fn is_ok(&self) -> bool {
        self.outcome.is_ok() && self.checked.is_none_or(|checked| checked.failures.is_empty())
    }

    /// The warnings.
    pub(super) fn warnings(&self) -> &[Warning] {
        match self.outcome {
            Ok(compiled) => &compiled.warnings,
            Err(faults) => faults.warnings(),
        }
    }

    fn faults(&self) -> &[Fault] {
        self.outcome.as_ref().err().map_or(&[], Faults::faults)
    }

    /// Warnings, faults, failed expectations, and a summary as the last line.
    pub(super) fn text(&self, all: bool) -> String {
        let most = if all { usize::MAX } else { SHOWN };
        let mut text = String::new();
        list(&mut text, self.warnings(), most, "warning", ToString::to_string);
        list(&mut text, self.faults(), most, "fault", ToString::to_string);
        if let Some(checked) = self.checked {
            list(&mut text, &checked.failures, most, "failed expectation", failed_text);
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let mut counts: Vec<String> = Vec::new();
        match self.outcome {
            Ok(Compiled { set, .. }) => {
                counts.push(count(self.files, "file"));
                counts.push(count(set.domains().len(), "domain"));
                counts.push(count(set.rules().len(), "rule"));
            }
            Err(faults) => counts.push(count(faults.faults().len(), "fault")),
        }
        if let Some(checked) = self.checked {
            let failed = checked.failures.len();
            let expectations = count(checked.count, "expectation");
            counts.push(match failed {
                0 => expectations,
                failed => format!("{failed} of {expectations} failed"),
            });
        }
        let ok = if self.is_ok() { ": ok" } else { "" };
        let summary = counts.join(", ") + ok;
        match self.warnings().len() {
            0 => summary,
            number => format!("{summary}, {}", count(number, "warning")),
        }
    }

    /// One object, with everything.
    pub(super) fn json(&self) -> Value {
        let set = self.outcome.as_ref().ok().map(|compiled| &compiled.set);
        let warnings: Vec<_> = self.warnings().iter().map(|Warning(fault)| json(fault)).collect();
        json!({
            "ok": self.is_ok(),
            "files": self.files,
            "domains": set.map(|set| set.domains().len()),
            "rules": set.map(|set| set.rules().len()),
            "faults": self.faults().iter().map(json).collect::<Vec<_>>(),
            "warnings": warnings,
            "expectations": self.checked.map(|checked| json!({
                "count": checked.count,
                "failures": checked.failures.iter().map(failed_json).collect::<Vec<_>>(),
            })),
        })
    }
}

fn json(Fault { place, message, hint, .. }: &Fault) -> Value {
    // 0 is the whole file.
    let number = |number: u32| (number > 0).then_some(number);
    json!({
        "file": &*place.file,
        "line": number(place.line),
        "column": number(place.column),
        "message": message,
        "hint": hint,
    })
}

fn failed_json(failed: &Failed) -> Value {
    json!({
        "file": &*failed.place.file,
        "line": failed.place.line,
        "column": failed.place.column,
        "domain": &*failed.domain,
        "descriptor": descriptor_text(failed),
        "expected": failed.expected,
        "found": failed.found,
    })
}

fn failed_text(failed: &Failed) -> String {
    let Failed { place, domain, expected, found, .. } = failed;
    let descriptor = descriptor_text(failed);
    format!("{place}: {domain} {descriptor}\n  expected {expected}\n  found    {found}")
}

fn descriptor_text(failed: &Failed) -> String {
    let entries = failed.entries.iter();
    let entry = |(key, value): &(Arc<str>, Arc<str>)| Entry {
        key: String::from(&**key),
        value: String::from(&**value),
    };
    descriptor::text(&entries.map(entry).collect::<Vec<_>>())
}

/// Adds the first items, and how many more there are.
fn list<T>(text: &mut String, items: &[T], most: usize, noun: &str, show: impl Fn(&T) -> String) {
    for item in items.iter().take(most) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", show(item));
    }
    if let Some(hidden @ 1..) = items.len().checked_sub(most) {
        let _ = writeln!(text, "{}; --all shows them", count(hidden, &format!("more {noun}")));
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use tollgate::policy::{Files, Options, Source};

    use super::*;

    fn report_of(text: &str, all: bool) -> String {
        let files = Files::of(vec![Source::new("a.yaml", text)]);
        let outcome = files.compile(&Options::default());
        Report { files: 1, outcome: &outcome, checked: None }.text(all)
    }

    #[test]
    fn good_files_give_a_summary() {
        let limit = "rate_limit: {unit: day, requests_per_unit: 1}";
        let text = format!("domain: d\ndescriptors: [{{key: a, {limit}}}, {{key: b, {limit}}}]\n");
        assert_eq!(report_of(&text, false), "1 file, 1 domain, 2 rules: ok");
    }

    #[test]
    fn warnings_come_before_faults_and_both_are_counted() {
        let text = "domain: d\ndescriptors:\n- {key: a, quota_mode: true}\n- {kee: b}\n";
        let lines = report_of(text, false);
        let heads: Vec<_> = lines.lines().filter(|line| !line.starts_with("  ")).collect();
        assert_eq!(
            heads,
            [
                "a.yaml:3:12: warning: quota_mode does nothing on a descriptor without limits",
                "a.yaml:4:3: key is missing or empty in a descriptor",
                "a.yaml:4:4: unknown key \"kee\" in a descriptor",
                "2 faults, 1 warning",
            ]
        );
    }

    #[test]
    fn more_than_twenty_faults_are_counted_and_not_shown() {
        let text =
            format!("domain: d\ndescriptors:\n{}", "- {key: a, rate_limits: []}\n".repeat(25));
        let faults = |text: &str| text.matches("rate_limits is empty").count();
        let short = report_of(&text, false);
        let long = report_of(&text, true);
        assert_eq!((faults(&long), long.contains("more")), (25, false), "{long}");
        let hidden = long.lines().last().unwrap().split(' ').next().unwrap();
        let hidden: usize = hidden.parse::<usize>().unwrap() - 20;
        assert!(short.contains(&format!("\n{hidden} more faults; --all shows them\n")), "{short}");
        assert_eq!(long.lines().last(), short.lines().last());
    }
}
