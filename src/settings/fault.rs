//! The faults of the settings: all of them at once, each with its key and the place it came
//! from.
//!
//! A fault never shows a secret. It does not say where in a run the settings were read.

use std::fmt;

/// One thing wrong with one setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The place of the setting: `FILE:LINE:COLUMN`, a variable, a flag, or `default`.
    pub origin: String,
    /// The dotted key, such as `grpc.listen`; empty when the source as a whole cannot be read.
    pub key: String,
    /// The value found, the expected values, and a hint where it helps.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every fault of the settings, in the order they were found. Never empty inside an error.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Notes one more.
    pub(crate) fn add(&mut self, origin: &str, key: &str, message: impl Into<String>) {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        self.0.push(Fault { origin, key, message: message.into() });
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 fault in the settings")?,
            count => write!(f, "{count} faults in the settings")?,
        }
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}
