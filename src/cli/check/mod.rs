//! `tollgate check`: faults and warnings of policies, and the limits that descriptors are expected
//! to meet.

mod report;

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use tollgate::policy::{Expectations, Source};

use self::report::{Checked, Report};
use super::exit::{Failure, Outcome};
use super::policies::{self, PolicyArgs};

/// `tollgate check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Policy files or directories; all paths together are one policy set; - reads standard
    /// input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Settings that the policies depend on.
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Check the limits of the descriptors in this file (YAML):
    /// [{domain: edge, descriptor: [user=alice], expect: 500/hour}]
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Option<PathBuf>,
    /// Fail on warnings too
    #[arg(long)]
    pub(crate) deny_warnings: bool,
    /// Output for people or as one line of JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Show every fault and warning instead of the first 20 of each
    #[arg(long)]
    pub(crate) all: bool,
}

/// A form of the output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    Text,
    /// One JSON object, with every fault and warning.
    Json,
}

/// Checks the policies and prints the report.
pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let expectations = args.expect.as_deref().map(read_expectations).transpose()?;
    let files = policies::read(&args.paths, args.policy.is_lenient())?;
    let outcome = files.compile(&args.policy.options());
    let checked = match (&expectations, &outcome) {
        (Some(expectations), Ok(compiled)) => Some(Checked {
            count: expectations.count(),
            failures: expectations.failures(&compiled.set),
        }),
        _ => None,
    };
    let report =
        Report { files: files.sources().len(), outcome: &outcome, checked: checked.as_ref() };
    match args.format {
        Format::Text => println!("{}", report.text(args.all)),
        Format::Json => println!("{}", report.json()),
    }
    let denied = args.deny_warnings && !report.warnings().is_empty();
    if report.is_ok() && !denied { Ok(()) } else { Err(Failure::Silent) }
}

fn read_expectations(path: &Path) -> Result<Expectations, Failure> {
    let name = path.to_string_lossy();
    let source = File::open(path).and_then(|file| Source::read(name.clone(), file));
    let source =
        source.map_err(|error| Failure::Failed(format!("{name}: cannot be read: {error}")))?;
    Expectations::read(&source)
        .map_err(|faults| Failure::Failed(format!("the expectations have faults\n{faults}")))
}
