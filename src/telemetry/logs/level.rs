//! The log filter: a level, or directives for targets.

use std::fmt;
use std::sync::Arc;

use tracing::metadata::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::targets::{AUDIT, DENIED};
use crate::settings::{Setting, quoted};

/// The log filter: a level, or directives `TARGET=LEVEL` separated by commas.
#[derive(Clone, Eq, PartialEq)]
pub struct Level(Arc<str>);

impl Level {
    /// Parses a filter.
    ///
    /// # Errors
    /// Fails if the filter is malformed. Also fails on a bare word that is not a level: it could be
    /// a target, but is usually a typo, and as a target it would log everything of it and nothing
    /// of the rest.
    pub fn new(text: &str) -> Result<Self, LevelError> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        for part in &parts {
            let directive = part.contains(['=', '[']);
            if part.is_empty() || (!directive && part.parse::<LevelFilter>().is_err()) {
                return Err(LevelError::Word((*part).to_owned()));
            }
        }
        let text = parts.join(",");
        match EnvFilter::builder().with_regex(false).parse(&text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(LevelError::Directive(error.to_string())),
        }
    }

    /// The text of the filter, without blanks around its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter. `audit`: audit lines pass at every level; `denied`: those of denials do. A
    /// directive of its own for such a target stands.
    pub(super) fn filter(&self, audit: bool, denied: bool) -> EnvFilter {
        let mut text = self.0.to_string();
        for (always, target, level) in [(audit, AUDIT, "info"), (denied, DENIED, "debug")] {
            if always && !self.0.contains(target) {
                text = format!("{text},{target}={level}");
            }
        }
        EnvFilter::builder().with_regex(false).parse_lossy(text)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Setting for Level {
    const EXPECTED: &'static str =
        "off, error, warn, info, debug or trace, or directives such as info,tollgate::store=debug";

    fn parse(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }

    fn show(&self) -> String {
        quoted(self.as_str())
    }

    fn hint(text: &str) -> Option<String> {
        Self::new(text).err().map(|error| error.to_string())
    }
}

/// The reason why a filter was rejected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LevelError {
    /// A part is neither a level nor a directive.
    #[error("{0:?} is no level; for one target write TARGET=LEVEL")]
    Word(String),
    /// A directive cannot be parsed.
    #[error("{0}")]
    Directive(String),
    /// The subscriber no longer exists.
    #[error("logging has ended")]
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_checked() {
        for good in
            ["info", "OFF", "warn,tollgate=debug", "info, tollgate::store=trace", "a[b]=info"]
        {
            assert_eq!(Level::new(good).unwrap().as_str(), good.replace(' ', ""));
        }
        for bad in ["", "infoo", "tollgate", "info,", "tollgate=loud", "verbose,tollgate=info"] {
            assert!(Level::new(bad).is_err(), "{bad:?}");
        }
    }
}
