//! Settings by name: which keys there are, and which one was probably meant.

use std::iter;

use super::Settings;
use crate::settings::{Faults, Key, Section};

impl Section {
    /// Every section and the sections inside it, as `print-config` orders them.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        Settings::SECTIONS.iter().flat_map(|section| iter::once(section).chain(section.inner))
    }

    /// The section of that name, such as `redis` or `redis.tls`; none for the keys at the top.
    pub fn find(name: &str) -> Option<&'static Self> {
        Self::all().find(|section| !section.name.is_empty() && section.name == name)
    }
}

impl Key {
    /// Every setting with its section, as `print-config` orders them.
    pub fn all() -> impl Iterator<Item = (&'static Section, &'static Self)> {
        Section::all().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
    }

    /// The setting of that dotted key.
    pub fn find(dotted: &str) -> Option<&'static Self> {
        Self::all().find(|(section, key)| key.dotted(section) == dotted).map(|(_, key)| key)
    }
}

/// Notes a key that no setting has, with the one that was probably meant.
pub(super) fn unknown(faults: &mut Faults, origin: &str, key: &str) {
    let section = key.rsplit_once('.').and_then(|(section, _)| Section::find(section));
    let message = match (closest(key), section) {
        (Some(known), _) => format!("unknown setting, did you mean {known}?"),
        (None, Some(section)) => {
            format!("unknown setting; {} has the keys {}", section.name, section.key_names())
        }
        (None, None) => "unknown setting; `tollgate print-config` lists all of them".to_owned(),
    };
    faults.add(origin, key, message);
}

/// The known key nearest to `key`: the same name in another section, else at most a third of it
/// mistyped.
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
