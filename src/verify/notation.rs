//! Promises as text: `[ALGORITHM] REQUESTS/PERIOD [burst N] [slots N]`.

use std::fmt;
use std::str::FromStr;

use super::promise::{Broken, Promise};
use crate::domain::{Algorithm, Charge, Limit, Unit};
use crate::policy::{AlgorithmName, Allowance};

const EXAMPLES: &str =
    "such as \"sliding_window 50/s\", \"token_bucket 50/s burst 100\" or \"fixed_window 3/day\"";

impl FromStr for Promise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: String| format!("limit {text:?}: {what}; write one {EXAMPLES}");
        let mut words = text.split_whitespace().peekable();
        let named = words.peek().and_then(|word| word.parse::<AlgorithmName>().ok());
        let name = named.inspect(|_| _ = words.next()).unwrap_or_default();
        let rate = words.next().ok_or_else(|| fault("it has no rate".to_owned()))?;
        let (requests, period) = match rate.parse::<Allowance>().map_err(&fault)? {
            Allowance::Rate(rate) => (rate.requests, rate.unit.period(rate.multiplier)),
            Allowance::Blocked => (0, Unit::Second.period(1)),
            Allowance::None | Allowance::Unlimited => {
                return Err(fault(format!("{rate:?} promises nothing")));
            }
        };
        let period = period.ok_or_else(|| fault("its period is too long".to_owned()))?;
        let mut algorithm = match name {
            AlgorithmName::TokenBucket => Algorithm::TokenBucket { burst: requests },
            AlgorithmName::SlidingWindow => {
                Algorithm::SlidingWindow { slots: Algorithm::DEFAULT_SLOTS }
            }
            AlgorithmName::FixedWindow => Algorithm::FixedWindow,
        };
        while let Some(word) = words.next() {
            let number = words.next().and_then(|number| number.parse().ok());
            match (word, &mut algorithm, number) {
                ("burst", Algorithm::TokenBucket { burst: option }, Some(number))
                | ("slots", Algorithm::SlidingWindow { slots: option }, Some(number)) => {
                    *option = number;
                }
                _ => return Err(fault(format!("{word:?} is no option of it with a number"))),
            }
        }
        let limit = Limit::new(requests, period, algorithm, Charge::Admitted);
        limit.map(Self::new).map_err(|error| fault(error.to_string()))
    }
}

/// Such as `token_bucket 50/second burst 100`, or `2 x sliding_window 50/second`.
impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bound() > 1 {
            write!(f, "{} x ", self.bound())?;
        }
        let limit = self.limit();
        let rate = Rate(limit);
        match limit.algorithm() {
            Algorithm::TokenBucket { burst } => write!(f, "token_bucket {rate} burst {burst}"),
            Algorithm::SlidingWindow { .. } => write!(f, "sliding_window {rate}"),
            Algorithm::FixedWindow => write!(f, "fixed_window {rate}"),
            Algorithm::Concurrency => write!(f, "concurrency {}", limit.requests()),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.worst)
    }
}

impl std::error::Error for Broken {}

/// Requests per period, in the longest unit that divides the period.
struct Rate<'a>(&'a Limit);

impl fmt::Display for Rate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, micros) = (self.0.requests(), self.0.period_micros());
        let multiplier = |unit: Unit| {
            let length = unit.seconds() * 1_000_000;
            (micros % length == 0).then(|| u32::try_from(micros / length).ok())?
        };
        let written = Unit::ALL.into_iter().rev().find_map(|unit| Some((unit, multiplier(unit)?)));
        match written {
            Some((unit, multiplier)) => Allowance::of(requests, unit, multiplier).fmt(f),
            None => write!(f, "{requests}/{micros}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read_in_every_spelling_and_printed_in_one() {
        for (text, printed) in [
            ("50/s", "sliding_window 50/second"),
            ("sliding_window 50/s slots 20", "sliding_window 50/second"),
            ("token_bucket 50/s", "token_bucket 50/second burst 50"),
            ("token_bucket  50/s  burst 100", "token_bucket 50/second burst 100"),
            ("TOKEN_BUCKET 100/10s burst 5", "token_bucket 100/10seconds burst 5"),
            ("fixed_window 3/day", "fixed_window 3/day"),
            ("fixed_window 3/60min", "fixed_window 3/hour"),
            ("sliding_window blocked", "sliding_window blocked"),
        ] {
            assert_eq!(text.parse::<Promise>().unwrap().to_string(), printed, "{text}");
        }
        let twice = "50/s".parse::<Promise>().unwrap().times(2);
        assert_eq!(twice.to_string(), "2 x sliding_window 50/second");
    }

    #[test]
    fn other_texts_are_refused_with_examples() {
        for (text, part) in [
            ("", "no rate"),
            ("token_bucket", "no rate"),
            ("leaky 50/s", "\"leaky\" is no rate"),
            ("50", "is no rate"),
            ("unlimited", "promises nothing"),
            ("fixed_window 50/s burst 3", "\"burst\" is no option"),
            ("token_bucket 50/s burst", "\"burst\" is no option"),
            ("token_bucket 50/s burst 0", "burst must be at least 1"),
            ("sliding_window 50/s slots 0", "slots must be"),
        ] {
            let error = text.parse::<Promise>().unwrap_err();
            assert!(error.contains(part) && error.contains("fixed_window 3/day"), "{error}");
        }
    }
}
