//! Policies named on the command line: files, directories and standard input.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use tollgate::config::Compat;
use tollgate::policy::{AlgorithmName, ChargeName, Files, Options, Source};

use super::exit::Failure;

/// Standard input: the path that stands for it, and its name in faults.
const STDIN: (&str, &str) = ("-", "stdin");

/// The settings that policies depend on.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    /// Algorithm of limits that do not name one: `sliding_window`, `token_bucket` or `fixed_window`
    ///
    /// Default: `sliding_window`.
    #[arg(long, value_name = "ALGORITHM")]
    pub(crate) default_algorithm: Option<AlgorithmName>,
    /// Charge of limits that do not name one: `admitted`, `always` or `settled`
    ///
    /// Default: `admitted`.
    #[arg(long, value_name = "CHARGE")]
    pub(crate) default_charge: Option<ChargeName>,
    /// Read policies as this service does: every file of a directory, and what it accepts is a
    /// warning; fixed windows and settled charges by default
    #[arg(long, value_name = "SERVICE")]
    pub(crate) compat: Option<Compat>,
    /// Merge files that define the same domain
    #[arg(long)]
    pub(crate) merge_domains: bool,
}

impl PolicyArgs {
    /// True if files are read as another service does.
    pub(crate) fn is_lenient(&self) -> bool {
        self.compat == Some(Compat::Ratelimit)
    }

    /// The same as options of the compiler.
    pub(crate) fn options(&self) -> Options {
        Options {
            default_algorithm: self.default_algorithm.unwrap_or(if self.is_lenient() {
                AlgorithmName::FixedWindow
            } else {
                AlgorithmName::default()
            }),
            default_charge: self.default_charge.unwrap_or(if self.is_lenient() {
                ChargeName::Settled
            } else {
                ChargeName::default()
            }),
            lenient: self.is_lenient(),
            merge_domains: self.merge_domains,
            ..Options::default()
        }
    }
}

/// Reads `paths` as one set.
///
/// # Errors
/// Standard input that cannot be read. Files that cannot be read are faults of the set.
pub(crate) fn read(paths: &[PathBuf], lenient: bool) -> Result<Files, Failure> {
    let is_stdin = |path: &&PathBuf| path.as_path() == Path::new(STDIN.0);
    let (stdin, paths): (Vec<_>, Vec<_>) = paths.iter().partition(is_stdin);
    let mut files = Files::read(&paths.into_iter().cloned().collect::<Vec<_>>(), lenient);
    if !stdin.is_empty() {
        let source = Source::read(STDIN.1, io::stdin().lock());
        let source =
            source.map_err(|error| Failure::Failed(format!("cannot read stdin: {error}")))?;
        files.push(if lenient { source.lenient() } else { source });
    }
    Ok(files)
}
