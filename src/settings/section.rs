//! A section of the settings: one declaration gives the type, the keys, their defaults and their
//! docs.
//!
//! Nothing here reads or checks a value.

/// One setting, as declared.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// Its meaning, by lines.
    pub doc: &'static [&'static str],
    /// Its default as it would be written; empty when unset.
    pub default: &'static str,
    /// The values that it takes.
    pub expected: &'static str,
    /// True if it is a mapping, which only a file can hold.
    pub mapping: bool,
    /// True if it is a list: one in a file, items separated by commas elsewhere.
    pub list: bool,
}

/// Settings that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The first part of its keys; empty for keys at the top.
    pub name: &'static str,
    /// Their common meaning, by lines.
    pub about: &'static [&'static str],
    /// Its settings.
    pub keys: &'static [Key],
    /// The sections inside it, such as `redis.tls`; they hold no sections.
    pub inner: &'static [Self],
}

impl Section {
    /// The names of its keys and of the sections inside it, by commas.
    pub(crate) fn key_names(&self) -> String {
        let inner = self.inner.iter().map(Self::last_name);
        self.keys.iter().map(|key| key.name).chain(inner).collect::<Vec<_>>().join(", ")
    }

    /// The last part of its name, such as `tls` of `redis.tls`.
    pub(crate) fn last_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

impl Key {
    /// The key as it is written after `--set` and in faults, such as `grpc.listen`.
    pub fn dotted(&self, section: &Section) -> String {
        dotted(section.name, self.name)
    }
}

/// The dotted form of a key, such as `grpc.listen`; without a section its name alone.
pub(crate) fn dotted(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Declares the type of a section. A field reads `/// doc`, `name: Type = "default" in RANGE`; the
/// range may be left out, and an empty default is unset. `with { field: Section, }` adds sections
/// inside it. `print-config` and the docs show the doc lines and defaults.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $section:ident in $prefix:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:literal $(in $range:expr)?,
            )+
        }
        $(with { $($(#[doc = $inner_doc:literal])+ $inner:ident: $inner_type:ty,)+ })?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $section {
            $($(#[doc = $doc])+ pub $field: $type,)+
            $($($(#[doc = $inner_doc])+ pub $inner: $inner_type,)+)?
        }

        impl $section {
            /// The section as declared.
            pub(crate) const SECTION: $crate::settings::Section = $crate::settings::Section {
                name: $prefix,
                about: &[$($about),+],
                keys: &[$($crate::settings::Key {
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    default: $default,
                    expected: <$type as $crate::settings::Setting>::EXPECTED,
                    mapping: <$type as $crate::settings::Setting>::MAPPING,
                    list: <$type as $crate::settings::Setting>::LIST,
                }),+],
                inner: &[$($(<$inner_type>::SECTION),+)?],
            };

            /// Reads every field before it gives up, so that all faults are known.
            pub(crate) fn read(reader: &mut $crate::settings::Reader) -> Option<Self> {
                $(
                    let $field = <$type as $crate::settings::Setting>::read(
                        reader, $prefix, stringify!($field), $default,
                    );
                    $(reader.bound($prefix, stringify!($field), $field.as_ref(), $range);)?
                )+
                $($(let $inner = <$inner_type>::read(reader);)+)?
                Some(Self { $($field: $field?,)+ $($($inner: $inner?,)+)? })
            }

            /// Adds the dotted keys whose values differ in `other`.
            pub(crate) fn changed(&self, other: &Self, keys: &mut Vec<String>) {
                $(
                    if PartialEq::ne(&self.$field, &other.$field) {
                        keys.push($crate::settings::dotted($prefix, stringify!($field)));
                    }
                )+
                $($(self.$inner.changed(&other.$inner, keys);)+)?
            }
        }

        impl Default for $section {
            fn default() -> Self {
                Self {
                    $($field: $crate::settings::declared::<$type>($default),)+
                    $($($inner: <$inner_type>::default(),)+)?
                }
            }
        }
    };
}

pub(crate) use section;
