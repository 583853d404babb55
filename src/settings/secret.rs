//! Secrets: values that are used but never shown.
//!
//! This hides values from logs, faults and `print-config`, and wipes the value when it is dropped.
//! It does not lock memory, and the readers of files and variables have copies of their own.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::read::Setting;
use super::value::quoted;

/// Stands in place of a secret wherever it would be shown. It is never a secret itself, so that
/// settings that were printed and stored do not load with it.
pub(crate) const REDACTED: &str = "***";

/// The advice where the mark was written for a secret.
pub(crate) const NOT_A_SECRET: &str = "`***` stands for a secret that print-config does not show; \
     write the secret, or leave the key out and name a file that holds it";

/// A value that neither `Debug` nor `Display` shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Hides `value`.
    pub fn new(value: &str) -> Self {
        Self(Arc::new(Zeroizing::new(value.to_owned())))
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "text that is not empty";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text != REDACTED).then(|| Self::new(text))
    }

    fn show(&self) -> String {
        quoted(REDACTED)
    }

    fn hint(text: &str) -> Option<String> {
        (text == REDACTED).then(|| NOT_A_SECRET.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)).matches("hunter2").count(),
            0
        );
        assert_eq!(secret.expose(), "hunter2");
    }
}
