//! A section of the settings: one declaration gives the type, the keys, their defaults and their docs.
//!
//! Nothing here reads or checks a value; see `value` and `load` beside it.

use super::Settings;

/// One setting, as declared.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// What it means, by lines.
    pub doc: &'static [&'static str],
    /// Its default as it would be written; empty when unset.
    pub default: &'static str,
    /// What values it takes.
    pub expected: &'static str,
    /// Whether it is a mapping, which only a file can hold.
    pub mapping: bool,
}

/// Settings that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The first part of its keys; empty for keys at the top.
    pub name: &'static str,
    /// What they have in common, by lines.
    pub about: &'static [&'static str],
    /// Its settings.
    pub keys: &'static [Key],
}

impl Section {
    /// The section of that name; none for the keys at the top.
    pub fn find(name: &str) -> Option<&'static Self> {
        let mut named = Settings::SECTIONS.iter().filter(|section| !section.name.is_empty());
        named.find(|section| section.name == name)
    }

    /// The names of its keys, by commas.
    pub(super) fn key_names(&self) -> String {
        self.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
    }
}

impl Key {
    /// Every setting with its section, as `print-config` orders them.
    pub fn all() -> impl Iterator<Item = (&'static Section, &'static Self)> {
        Settings::SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |k| (section, k)))
    }

    /// The setting of that dotted key.
    pub fn find(dotted: &str) -> Option<&'static Self> {
        Self::all().find(|(section, key)| key.dotted(section) == dotted).map(|(_, key)| key)
    }

    /// The key as it is written after `--set` and in faults, such as `grpc.listen`.
    pub fn dotted(&self, section: &Section) -> String {
        if section.name.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", section.name, self.name)
        }
    }
}

/// Declares the type of a section. A field reads `/// doc`, `name: Type = "default"`; an empty default is
/// unset. The doc lines and defaults are also what `print-config` shows.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $section:ident in $prefix:literal {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:literal,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $section {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl $section {
            /// The section as declared.
            const SECTION: Section = Section {
                name: $prefix,
                about: &[$($about),+],
                keys: &[$(Key {
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    default: $default,
                    expected: <$type as Setting>::EXPECTED,
                    mapping: <$type as Setting>::MAPPING,
                }),+],
            };

            /// Reads every field before it gives up, so that all faults are known.
            fn read(reader: &mut Reader) -> Option<Self> {
                $(let $field = <$type as Setting>::read(reader, $prefix, stringify!($field));)+
                Some(Self { $($field: $field?),+ })
            }
        }
    };
}

pub(super) use section;
