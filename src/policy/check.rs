//! Checking policies before they are used, for `tollgate check`.

use std::fmt;
use std::path::PathBuf;

use super::fault::{Faults, Warning};
use super::{Compiled, Files, Options};

/// What a check found. Prints every fault and warning, and a summary in its last line.
#[derive(Debug)]
pub struct CheckReport {
    /// How many files were read.
    pub files: usize,
    /// What they compile to.
    pub outcome: Result<Compiled, Faults>,
}

/// Checks the files and directories at `paths` together, as one set.
pub fn check(paths: &[PathBuf], options: &Options) -> CheckReport {
    let files = Files::read(paths);
    CheckReport { files: files.sources().len(), outcome: files.compile(options) }
}

impl CheckReport {
    /// Whether there is no fault.
    pub fn is_ok(&self) -> bool {
        self.outcome.is_ok()
    }

    fn warnings(&self) -> &[Warning] {
        match &self.outcome {
            Ok(compiled) => &compiled.warnings,
            Err(faults) => faults.warnings(),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = self.warnings();
        for warning in warnings {
            writeln!(f, "{warning}")?;
        }
        match &self.outcome {
            Ok(Compiled { set, .. }) => {
                let [files, domains, rules] = [
                    (self.files, "file"),
                    (set.domains().len(), "domain"),
                    (set.rules().len(), "rule"),
                ]
                .map(count);
                write!(f, "{files}, {domains}, {rules}: ok")?;
            }
            Err(faults) => write!(f, "{faults}\n{}", count((faults.faults().len(), "fault")))?,
        }
        match warnings.len() {
            0 => Ok(()),
            number => write!(f, ", {}", count((number, "warning"))),
        }
    }
}

fn count((number, noun): (usize, &str)) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(text: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        let report = check(&[path], &Options::default());
        report.to_string().replace(&root.path().display().to_string(), "DIR")
    }

    #[test]
    fn good_files_give_a_summary() {
        let limit = "rate_limit: {unit: day, requests_per_unit: 1}";
        let text = format!("domain: d\ndescriptors: [{{key: a, {limit}}}, {{key: b, {limit}}}]\n");
        assert_eq!(check_of(&text), "1 file, 1 domain, 2 rules: ok");
    }

    #[test]
    fn warnings_come_before_faults_and_both_are_counted() {
        let text = "domain: d\ndescriptors:\n- {key: a, quota_mode: true}\n- {kee: b}\n";
        let lines = check_of(text);
        let heads: Vec<_> = lines.lines().filter(|line| !line.starts_with("  ")).collect();
        assert_eq!(
            heads,
            [
                "DIR/a.yaml:3:12: warning: quota_mode does nothing on a descriptor without limits",
                "DIR/a.yaml:4:3: key is missing or empty in a descriptor",
                "DIR/a.yaml:4:4: unknown key \"kee\" in a descriptor",
                "2 faults, 1 warning",
            ]
        );
    }

    #[test]
    fn missing_path_is_a_fault_beside_those_of_other_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.yaml"), "domain: d\nrules: []\n").unwrap();
        let paths = [root.path().join("gone.yaml"), root.path().to_owned()];
        let report = check(&paths, &Options::default());
        assert!(!report.is_ok());
        let text = report.to_string();
        assert!(text.contains("gone.yaml: cannot be read: "), "{text}");
        assert!(text.contains("a.yaml:2:1: unknown key \"rules\""), "{text}");
        assert!(text.ends_with("2 faults"), "{text}");
    }
}
