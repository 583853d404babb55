//! Policies: YAML files compiled into an immutable [`PolicySet`] that matches descriptors to rules.
//!
//! ```text
//!  path --source--> files --yaml--> nodes --schema--> as written --compile--> PolicySet
//!                                                                                 |
//!  control: reloads changed files                         (domain, entries) --matcher--> Rule
//! ```
//!
//! A set of files is compiled as a whole, and all faults of all files are reported together. This
//! module does not count, swap sets or keep the last good set; [`control`](crate::control) does.
//!
//! * [`compile()`], [`load`], [`Files`]: compile files to a set, or to [`Faults`].
//! * [`Expectations`]: descriptors, and the limits that they should meet.
//! * [`PolicySet`], [`Domain`], [`Rule`]: the lookup of a descriptor, and its result.
//!
//! # Example
//!
//! ```
//! use tollgate::policy::{LimitKind, Options, Source, compile};
//!
//! let yaml = "
//! domain: api
//! descriptors:
//!   - key: client
//!     rate_limit: {unit: minute, requests_per_unit: 60}
//!   - key: client
//!     value: alice
//!     rate_limit: {unit: second, requests_per_unit: 100}
//! ";
//! let compiled = compile(&[Source::new("api.yaml", yaml)], &Options::default())?;
//! let domain = compiled.set.domain(b"api").expect("the file defines it");
//!
//! // An exact value takes precedence over the key alone.
//! let rule = domain.find([(&b"client"[..], &b"alice"[..])]).expect("a rule matches");
//! let LimitKind::Counted { limit, .. } = &rule.limits[0].kind else { panic!("not unlimited") };
//! assert_eq!(limit.requests(), 100);
//!
//! let rule = domain.find([(&b"client"[..], &b"bob"[..])]).expect("a rule matches");
//! assert_eq!(rule.label, "client");
//! assert!(domain.find([(&b"path"[..], &b"/"[..])]).is_none());
//! # Ok::<(), tollgate::policy::Faults>(())
//! ```

use std::path::{Path, PathBuf};

mod allowance;
mod calendar;
mod compile;
mod cost;
mod draft;
mod expect;
mod fault;
mod matcher;
mod options;
mod pattern;
mod report;
mod rule;
mod schema;
mod set;
mod source;
mod words;

pub use self::allowance::{Allowance, Rate};
pub use self::calendar::Calendar;
pub(crate) use self::compile::network;
pub use self::compile::{Compiled, compile};
pub(crate) use self::compile::{LONGEST_NAME, fits_header};
pub use self::cost::{Cost, Weights};
pub use self::draft::{Draft, DraftLimit, DraftNode};
pub use self::expect::{Expectations, Failed};
pub use self::fault::{Fault, Faults, Place, Snippet, Warning};
pub use self::options::Options;
pub use self::rule::{Estimate, HoldTerms, How, LeaseTerms, LimitKind, PathEntry, Rule, RuleLimit};
pub use self::rule::{MAX_METADATA_BYTES, MAX_METADATA_LEVELS, limit_numbers};
pub use self::schema::{KEYS, OnUnknown, Signs};
pub use self::set::{Domain, PolicySet};
pub use self::source::Source;
pub use self::words::{AlgorithmName, ChargeName, Defaults, OnStoreFailure, UnknownWord};

pub(crate) use self::source::Listing;

/// Loads the file at `path`, or every `*.yaml` and `*.yml` in and below that directory; with
/// [`Options::lenient`] every file.
///
/// Entries whose name begins with a dot are skipped, links are followed. Reads files: blocks.
pub fn load(path: &Path, options: &Options) -> Result<Compiled, Faults> {
    Files::read(&[path.to_owned()], options.lenient).compile(options)
}

/// Policy files as they were read.
#[derive(Clone, Debug, Default)]
pub struct Files {
    sources: Vec<Source>,
    /// Those that could not be read, or were refused by their reader.
    unread: Vec<Fault>,
    /// Directories without any, and what the reader of a file warns of.
    warnings: Vec<Warning>,
}

impl Files {
    /// Reads several paths, each as [`load`] does. Blocks.
    pub fn read(paths: &[PathBuf], lenient: bool) -> Self {
        let mut files = Self::default();
        for path in paths {
            if lenient && !path.exists() {
                files.warn_of_none(path, "does not exist yet, so no limits");
                continue;
            }
            let (found, faults) = Listing::of(path, lenient).read();
            if found.is_empty() && faults.is_empty() {
                let kind = if lenient { "" } else { "*.yaml or *.yml " };
                files.warn_of_none(path, &format!("no {kind}file in this directory, so no limits"));
            }
            let read = |source: Source| if lenient { source.lenient() } else { source };
            files.sources.extend(found.into_iter().map(read));
            files.unread.extend(faults);
        }
        files
    }

    fn warn_of_none(&mut self, path: &Path, message: &str) {
        let fault = Fault::of_file(path.to_string_lossy().into(), message.to_owned());
        self.warnings.push(Warning(fault));
    }

    /// Files that were read elsewhere.
    pub fn of(sources: Vec<Source>) -> Self {
        Self { sources, ..Self::default() }
    }

    /// Adds a file that was read elsewhere.
    pub fn push(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// Adds a fault of the file `name`, which is then refused with all others.
    pub fn refuse(&mut self, name: &str, message: String) {
        self.unread.push(Fault::of_file(name.into(), message));
    }

    /// Adds a warning about the file `name`.
    pub fn warn(&mut self, name: &str, message: String) {
        self.warnings.push(Warning(Fault::of_file(name.into(), message)));
    }

    /// The files.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Compiles them as one set; a file that could not be read is a fault.
    pub fn compile(&self, options: &Options) -> Result<Compiled, Faults> {
        match compile(&self.sources, options) {
            Ok(mut compiled) if self.unread.is_empty() => {
                compiled.warnings.extend(self.warnings.iter().cloned());
                Ok(compiled)
            }
            Ok(compiled) => Err(Faults::new(self.unread.clone(), compiled.warnings)),
            Err(faults) => Err(faults.after(self.unread.clone())),
        }
    }
}
