//! Descriptors as operators write them: `key=value`, one word an entry.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use tollgate::limiter::request;
use tollgate::telemetry::escape::escape;

/// One pair of a descriptor.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Entry {
    /// Never empty.
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Entry {
    type Err = String;

    /// The first `=` ends the key.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("{text:?} is no entry: write KEY=VALUE, such as user=alice")),
        }
    }
}

impl<'m> From<&'m Entry> for request::Entry<'m> {
    fn from(Entry { key, value }: &'m Entry) -> Self {
        Self { key: key.as_bytes(), value: value.as_bytes() }
    }
}

/// In quotes for a shell where it needs them.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}={}", self.key, self.value);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+=,-".contains(c);
        let text = escape(text.as_bytes()).to_string();
        if text.chars().all(plain) {
            return f.write_str(&text);
        }
        f.write_char('\'')?;
        f.write_str(&text.replace('\'', r"'\''"))?;
        f.write_char('\'')
    }
}

/// The entries as one text, as they are typed.
pub(crate) fn text(entries: &[Entry]) -> String {
    entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_equals_sign_ends_the_key() {
        for (text, key, value) in [
            ("user=alice", "user", "alice"),
            ("query=a=b&c=", "query", "a=b&c="),
            ("generic_key=", "generic_key", ""),
        ] {
            let entry: Entry = text.parse().unwrap();
            assert_eq!((&*entry.key, &*entry.value), (key, value));
        }
        for text in ["user", "=alice", ""] {
            assert!(text.parse::<Entry>().unwrap_err().contains("KEY=VALUE"), "{text}");
        }
    }

    #[test]
    fn printed_entries_can_be_typed_again() {
        for (text, printed) in [
            ("user=alice", "user=alice"),
            ("path=/a b", "'path=/a b'"),
            ("name=O'Neil", r"'name=O'\''Neil'"),
            ("x=\u{1b}[2J", "'x=%1B[2J'"),
        ] {
            assert_eq!(text.parse::<Entry>().unwrap().to_string(), printed);
        }
    }
}
