//! What is wrong with the settings: all of it at once, each with its key and the place it came from.
//!
//! A fault never shows a secret. It does not say where in a run the settings were read.

use std::fmt;

use super::section::{Key, Section};

/// One thing wrong with one setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where the setting was written: `FILE:LINE:COLUMN`, a variable, a flag, or `default`.
    pub origin: String,
    /// The dotted key, such as `grpc.listen`; empty when the source as a whole cannot be read.
    pub key: String,
    /// What was found, what is expected, and where it helps a hint.
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
    pub(super) fn add(&mut self, origin: &str, key: &str, message: impl Into<String>) {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        self.0.push(Fault { origin, key, message: message.into() });
    }

    /// Notes a key that no setting has, with the one that was probably meant.
    pub(super) fn unknown(&mut self, origin: &str, key: &str) {
        let section = key.split_once('.').and_then(|(section, _)| Section::find(section));
        let message = match (closest(key), section) {
            (Some(known), _) => format!("unknown setting, did you mean {known}?"),
            (None, Some(section)) => {
                format!("unknown setting; {} has the keys {}", section.name, section.key_names())
            }
            (None, None) => "unknown setting; `tollgate print-config` lists all of them".to_owned(),
        };
        self.add(origin, key, message);
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

/// The known key nearest to `key`: the same name in another section, else at most a third of it mistyped.
fn closest(key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase();
    let name = key.rsplit('.').next().unwrap_or(&key);
    let distance = |known: &String| strsim::damerau_levenshtein(known, &key);
    let nearest = Key::all().map(|(section, known)| known.dotted(section)).min_by_key(distance)?;
    if distance(&nearest) <= (key.len() / 3).max(2) {
        return Some(nearest);
    }
    let namesake = Key::all().find(|(_, known)| known.name == name);
    namesake.map(|(section, known)| known.dotted(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_key_names_the_likely_one() {
        for (typed, meant) in [
            ("grpc.listn", Some("grpc.listen")),
            ("redis_url", Some("redis.url")),
            ("logs.level", Some("log.level")),
            ("polices.path", Some("policies.path")),
            ("deadline", Some("store.deadline")),
            ("frobnicate", None),
        ] {
            assert_eq!(closest(typed).as_deref(), meant, "{typed}");
        }
    }
}
