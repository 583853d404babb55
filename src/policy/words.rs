//! The words that policies and settings choose from, and what each is called.
//!
//! Any case is understood. What the words mean is told where they are used.

use std::str::FromStr;

use crate::domain::Unit;

/// An algorithm by name, without its numbers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum AlgorithmName {
    /// `sliding_window`
    #[default]
    SlidingWindow,
    /// `token_bucket`
    TokenBucket,
    /// `fixed_window`
    FixedWindow,
}

/// What a limit answers while its store does not.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OnStoreFailure {
    /// Every request passes.
    Allow,
    /// Every request is over the limit.
    Deny,
}

/// When hits are charged, by name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ChargeName {
    /// `admitted`
    #[default]
    Admitted,
    /// `always`
    Always,
}

/// A word that is none of those expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown word {word:?}, expected one of {expected}")]
pub struct UnknownWord {
    /// The word as written.
    pub word: String,
    /// The words there are, separated by commas.
    pub expected: String,
}

/// A closed set of words.
pub(super) trait Word: Copy + 'static {
    /// Every word with its meaning, the usual ones first.
    const WORDS: &'static [(&'static str, Self)];

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

impl Word for AlgorithmName {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("sliding_window", Self::SlidingWindow),
        ("token_bucket", Self::TokenBucket),
        ("fixed_window", Self::FixedWindow),
    ];
}

impl Word for OnStoreFailure {
    const WORDS: &'static [(&'static str, Self)] = &[("allow", Self::Allow), ("deny", Self::Deny)];
}

impl Word for ChargeName {
    const WORDS: &'static [(&'static str, Self)] =
        &[("admitted", Self::Admitted), ("always", Self::Always)];
}

impl Word for Unit {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Second.name(), Self::Second),
        (Self::Minute.name(), Self::Minute),
        (Self::Hour.name(), Self::Hour),
        (Self::Day.name(), Self::Day),
        (Self::Week.name(), Self::Week),
        (Self::Month.name(), Self::Month),
        (Self::Year.name(), Self::Year),
    ];
}

impl AlgorithmName {
    /// The name as policies write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlidingWindow => "sliding_window",
            Self::TokenBucket => "token_bucket",
            Self::FixedWindow => "fixed_window",
        }
    }
}

impl FromStr for AlgorithmName {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        parse(word)
    }
}

impl FromStr for OnStoreFailure {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        parse(word)
    }
}

fn parse<T: Word>(word: &str) -> Result<T, UnknownWord> {
    T::from_word(word)
        .ok_or_else(|| UnknownWord { word: word.to_owned(), expected: T::names().join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_in_any_case() {
        assert_eq!("token_bucket".parse(), Ok(AlgorithmName::TokenBucket));
        assert_eq!("DENY".parse(), Ok(OnStoreFailure::Deny));
        assert_eq!(Unit::from_word("Week"), Some(Unit::Week));
        assert_eq!(Unit::names().len(), Unit::ALL.len());
        for &(name, algorithm) in AlgorithmName::WORDS {
            assert_eq!(algorithm.name(), name);
        }
    }

    #[test]
    fn unknown_word_names_those_expected() {
        let error = "local".parse::<OnStoreFailure>().unwrap_err();
        assert_eq!(error.to_string(), "unknown word \"local\", expected one of allow, deny");
    }
}
