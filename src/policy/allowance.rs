//! Limits in a word, as operators write them: `500/hour`, `100/5minutes`, `unlimited`,
//! `blocked`, `none`.

use std::fmt;
use std::str::FromStr;

use super::rule::{LimitKind, RuleLimit};
use crate::domain::Unit;

/// One limit of a descriptor, or the absence of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allowance {
    /// No limit applies.
    None,
    /// A limit that counts nothing.
    Unlimited,
    /// A limit of 0.
    Blocked,
    /// A limit above 0.
    Rate(Rate),
}

/// Requests per period. Equal periods are equal, however they are written.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Requests per period.
    pub requests: u32,
    /// The unit of the period.
    pub unit: Unit,
    /// The units of a period.
    pub multiplier: u32,
}

impl PartialEq for Rate {
    fn eq(&self, other: &Self) -> bool {
        let period = |rate: &Self| rate.unit.period(rate.multiplier);
        self.requests == other.requests && period(self) == period(other)
    }
}

impl Eq for Rate {}

impl Allowance {
    /// Of so many requests per period.
    pub const fn of(requests: u32, unit: Unit, multiplier: u32) -> Self {
        if requests == 0 {
            return Self::Blocked;
        }
        Self::Rate(Rate { requests, unit, multiplier })
    }
}

impl From<&RuleLimit> for Allowance {
    fn from(limit: &RuleLimit) -> Self {
        match limit.kind {
            LimitKind::Unlimited => Self::Unlimited,
            LimitKind::Counted { limit, unit, unit_multiplier, .. } => {
                Self::of(limit.requests(), unit, unit_multiplier)
            }
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Blocked => f.write_str("blocked"),
            Self::Rate(Rate { requests, unit, multiplier: 1 }) => {
                write!(f, "{requests}/{}", unit.name())
            }
            Self::Rate(Rate { requests, unit, multiplier }) => {
                write!(f, "{requests}/{multiplier}{}s", unit.name())
            }
        }
    }
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            "unlimited" => return Ok(Self::Unlimited),
            "blocked" => return Ok(Self::Blocked),
            _ => {}
        }
        let expected = || {
            format!(
                "{text:?} is no rate: write REQUESTS/PERIOD, such as 500/hour or 100/5minutes; \
                 periods are second, minute, hour, day, week, month and year"
            )
        };
        let (requests, period) = text.split_once('/').ok_or_else(expected)?;
        let requests = requests.trim().parse().map_err(|_| expected())?;
        let period = period.trim();
        let digits = period.len() - period.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (multiplier, word) = period.split_at(digits);
        let multiplier =
            if digits == 0 { 1 } else { multiplier.parse().map_err(|_| expected())? };
        let unit = unit(word.trim()).ok_or_else(expected)?;
        if unit.period(multiplier).is_none() {
            return Err(format!("{text:?}: a period is at least one second and at most ten years"));
        }
        Ok(Self::of(requests, unit, multiplier))
    }
}

/// The unit of a word: its name, also in the plural, or its first letter where that is clear.
fn unit(word: &str) -> Option<Unit> {
    let word = word.to_ascii_lowercase();
    match &*word {
        "s" | "sec" => Some(Unit::Second),
        "m" | "min" => Some(Unit::Minute),
        "h" => Some(Unit::Hour),
        "d" => Some(Unit::Day),
        "w" => Some(Unit::Week),
        word => Unit::from_name(word.strip_suffix('s').unwrap_or(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_every_spelling_and_printed_in_one() {
        for (text, printed) in [
            ("500/hour", "500/hour"),
            ("500/h", "500/hour"),
            ("500 / hours", "500/hour"),
            ("500/1hour", "500/hour"),
            ("100/5minutes", "100/5minutes"),
            ("100/5 min", "100/5minutes"),
            ("1/MONTH", "1/month"),
            ("0/day", "blocked"),
            ("blocked", "blocked"),
            ("none", "none"),
            ("unlimited", "unlimited"),
            ("4294967295/10years", "4294967295/10years"),
        ] {
            assert_eq!(text.parse::<Allowance>().unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn equal_periods_are_equal() {
        let rate = |text: &str| text.parse::<Allowance>().unwrap();
        assert_eq!(rate("5/60minutes"), rate("5/hour"));
        assert_ne!(rate("5/minute"), rate("300/hour"), "a window of its own length");
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        for text in
            ["", "500", "500/", "/hour", "500/fortnight", "-1/hour", "1.5/hour", "4294967296/day"]
        {
            let error = text.parse::<Allowance>().unwrap_err();
            assert!(error.contains("500/hour"), "{text}: {error}");
        }
        for text in ["1/0hours", "1/11years"] {
            let error = text.parse::<Allowance>().unwrap_err();
            assert!(error.contains("ten years"), "{text}: {error}");
        }
    }
}
