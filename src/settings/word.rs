//! Choices of words, in settings and in policies. Each word is declared once; any case is
//! understood.

/// A closed set of words.
pub(crate) trait Word: Copy + 'static {
    /// Every word with its meaning, the usual ones first.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this meaning.
    fn word(self) -> &'static str;

    /// The meaning of a word in any case.
    fn from_word(word: &str) -> Option<Self> {
        let known = Self::WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        known.map(|&(_, meaning)| meaning)
    }

    /// The words alone.
    fn names() -> Vec<&'static str> {
        Self::WORDS.iter().map(|&(name, _)| name).collect()
    }
}

/// Declares the words of an enum, which make it a [`Word`] and a [`Setting`](super::Setting).
macro_rules! words {
    ($type:ty { $($word:literal => $value:ident),+ $(,)? }) => {
        impl $crate::settings::Word for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$value)),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }
        }

        impl $crate::settings::Setting for $type {
            const EXPECTED: &'static str = $crate::settings::listed!($($word),+);

            fn parse(text: &str) -> Option<Self> {
                <Self as $crate::settings::Word>::from_word(text)
            }

            fn show(&self) -> String {
                $crate::settings::quoted($crate::settings::Word::word(*self))
            }
        }
    };
}

/// Words as a sentence lists them: `a, b or c`.
macro_rules! listed {
    ($last:literal) => { $last };
    ($word:literal, $last:literal) => { concat!($word, " or ", $last) };
    ($word:literal, $($rest:literal),+) => {
        concat!($word, ", ", $crate::settings::listed!($($rest),+))
    };
}

pub(crate) use {listed, words};
