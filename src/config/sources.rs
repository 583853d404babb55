//! The sources of settings, before any of them is read.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::service::Compat;
use crate::settings::Secret;

/// The sources of settings, weakest first. `Debug` shows none of the values, which may be secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The settings file.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE` pairs of `--set`, dotted; a later pair wins.
    pub set: Vec<Secret>,
    /// The flag `--compat`.
    pub compat: Option<Compat>,
    /// The service that the program is named after.
    pub program: Compat,
    /// The flag `--policies`.
    pub policies: Option<String>,
    /// The flag `--redis-url`.
    pub redis_url: Option<Secret>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, policies, .. } = self;
        let mut sources = f.debug_struct("Sources");
        sources.field("file", file).field("policies", policies).finish_non_exhaustive()
    }
}
