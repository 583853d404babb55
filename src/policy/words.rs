//! The words that policies and settings choose from, and what each is called.
//!
//! Any case is understood. What the words mean is told where they are used.

use std::str::FromStr;

use jiff::civil::Weekday;

use super::calendar::Calendar;
use crate::domain::{Charge, Unit};
use crate::settings::{Word, words};

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

/// The algorithm of a limit of a policy, by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MethodName {
    /// `sliding_window`
    SlidingWindow,
    /// `token_bucket`
    TokenBucket,
    /// `fixed_window`
    FixedWindow,
    /// `concurrency`: so many at a time.
    Concurrency,
}

/// The answer of a limit while its store gives none.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OnStoreFailure {
    /// Each replica decides by its share of the limit.
    Local,
    /// Every request passes.
    Allow,
    /// Every request is over the limit.
    Deny,
    /// No request has an answer: its caller gets an error and decides.
    Error,
}

/// The condition on which hits are charged, by name.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ChargeName {
    /// `admitted`
    #[default]
    Admitted,
    /// `always`
    Always,
    /// `settled`
    Settled,
}

/// A day of the week, by name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum WeekdayName {
    /// `monday`
    #[default]
    Monday,
    /// `tuesday`
    Tuesday,
    /// `wednesday`
    Wednesday,
    /// `thursday`
    Thursday,
    /// `friday`
    Friday,
    /// `saturday`
    Saturday,
    /// `sunday`
    Sunday,
}

/// Defaults for policies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Defaults {
    /// The algorithm of limits that name none.
    pub algorithm: AlgorithmName,
    /// The charge of limits that name none.
    pub charge: ChargeName,
    /// Every descriptor counts among the quota descriptors.
    pub quota: bool,
    /// Fixed windows of a month are those of the calendar of UTC.
    pub calendar_months: bool,
}

impl Defaults {
    /// The calendar of fixed windows of this period, unless one is named.
    pub fn calendar(&self, period: (Unit, u32)) -> Option<Calendar> {
        let months = self.calendar_months && period == (Unit::Month, 1);
        months.then(Calendar::months).flatten()
    }
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

words!(AlgorithmName {
    "sliding_window" => SlidingWindow,
    "token_bucket" => TokenBucket,
    "fixed_window" => FixedWindow,
});
words!(MethodName {
    "sliding_window" => SlidingWindow,
    "token_bucket" => TokenBucket,
    "fixed_window" => FixedWindow,
    "concurrency" => Concurrency,
});
words!(OnStoreFailure {
    "local" => Local,
    "allow" => Allow,
    "deny" => Deny,
    "error" => Error,
});
words!(WeekdayName {
    "monday" => Monday,
    "tuesday" => Tuesday,
    "wednesday" => Wednesday,
    "thursday" => Thursday,
    "friday" => Friday,
    "saturday" => Saturday,
    "sunday" => Sunday,
});
words!(ChargeName { "admitted" => Admitted, "always" => Always, "settled" => Settled });

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

    fn word(self) -> &'static str {
        self.name()
    }
}

impl FromStr for AlgorithmName {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        parse(word)
    }
}

impl FromStr for ChargeName {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        parse(word)
    }
}

fn parse<T: Word>(word: &str) -> Result<T, UnknownWord> {
    let unknown = || UnknownWord { word: word.to_owned(), expected: T::names().join(", ") };
    T::from_word(word).ok_or_else(unknown)
}

/// The debt in bursts that a token bucket that always charges may go into, unless something says
/// otherwise.
const DEBT: u64 = 10;

impl ChargeName {
    /// The charge of a limit with this burst. The debt of a bucket is at most `max_debt`. Left
    /// open: ten times the burst if the limit always charges, and no bound if it settles.
    pub fn charge(self, max_debt: Option<u64>, burst: u32) -> Charge {
        let always = || max_debt.unwrap_or(DEBT * u64::from(burst));
        match self {
            Self::Admitted => Charge::Admitted,
            Self::Always => Charge::Always { max_debt: Some(always()) },
            Self::Settled => Charge::Settled { max_debt },
        }
    }
}

impl From<AlgorithmName> for MethodName {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::SlidingWindow => Self::SlidingWindow,
            AlgorithmName::TokenBucket => Self::TokenBucket,
            AlgorithmName::FixedWindow => Self::FixedWindow,
        }
    }
}

impl From<WeekdayName> for Weekday {
    fn from(name: WeekdayName) -> Self {
        match name {
            WeekdayName::Monday => Self::Monday,
            WeekdayName::Tuesday => Self::Tuesday,
            WeekdayName::Wednesday => Self::Wednesday,
            WeekdayName::Thursday => Self::Thursday,
            WeekdayName::Friday => Self::Friday,
            WeekdayName::Saturday => Self::Saturday,
            WeekdayName::Sunday => Self::Sunday,
        }
    }
}

impl From<Charge> for ChargeName {
    fn from(charge: Charge) -> Self {
        match charge {
            Charge::Admitted | Charge::Held { .. } => Self::Admitted,
            Charge::Always { .. } => Self::Always,
            Charge::Settled { .. } => Self::Settled,
        }
    }
}

/// "did you mean": the candidate that the fewest slips of the pen turn into `word`, if few are
/// enough.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    let word: String = word.chars().take(64).collect();
    let slips = |candidate: &'c str| (strsim::osa_distance(&word, candidate), candidate);
    let (slips, best) = candidates.into_iter().map(slips).min()?;
    (slips <= (best.len() / 3).max(1)).then(|| format!("did you mean {best:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_in_any_case() {
        assert_eq!("token_bucket".parse(), Ok(AlgorithmName::TokenBucket));
        assert_eq!(OnStoreFailure::from_word("DENY"), Some(OnStoreFailure::Deny));
        assert_eq!(Unit::from_word("Week"), Some(Unit::Week));
        assert_eq!(Unit::names().len(), Unit::ALL.len());
        for &(word, algorithm) in AlgorithmName::WORDS {
            assert_eq!(algorithm.word(), word);
        }
    }

    #[test]
    fn unknown_word_names_those_expected() {
        let error = "leaky".parse::<AlgorithmName>().unwrap_err();
        let expected = "expected one of sliding_window, token_bucket, fixed_window";
        assert_eq!(error.to_string(), format!("unknown word \"leaky\", {expected}"));
    }
}
