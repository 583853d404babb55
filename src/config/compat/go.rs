//! Values as Go reads them from variables.

use std::time::Duration;

/// The units of a duration, in nanoseconds. Of two that begin alike the longer one is first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
];

/// The expected form of a truth value.
pub(super) const FLAG: &str = "true or false";

/// The expected form of a duration.
pub(super) const DURATION: &str = "a duration such as 10s, 1m30s or 150us";

/// Reads a truth value.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a duration that is not negative: numbers with units, or a bare 0.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let (unit, scale) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        nanos += number.parse::<f64>().ok()? * scale;
        rest = after.strip_prefix(unit)?;
    }
    let fits = !text.is_empty() && nanos <= i64::MAX as f64;
    fits.then(|| Duration::from_secs_f64(nanos / 1e9))
}

/// Reads pairs that are separated by commas, each cut at the first `between`.
pub(super) fn pairs(text: &str, between: char) -> Option<Vec<(&str, &str)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.split_once(between)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let table = [
            ("10s", Some(10_000_000)),
            ("1h30m", Some(5_400_000_000)),
            ("0.015ms", Some(15)),
            ("150us", Some(150)),
            ("150µs", Some(150)),
            ("1m0.5s", Some(60_500_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("-1s", None),
            ("s", None),
            ("1d", None),
            ("1s ", None),
            ("99999999999999h", None),
        ];
        for (text, micros) in table {
            assert_eq!(duration(text), micros.map(Duration::from_micros), "{text:?}");
        }
    }

    #[test]
    fn truth_values_and_pairs_are_those_of_go() {
        assert_eq!(
            ["1", "T", "True", "f", "FALSE"].map(flag),
            [true, true, true, false, false].map(Some)
        );
        assert_eq!(["yes", "tRUE", ""].map(flag), [None; 3]);
        assert_eq!(pairs("a:b:c, d:e,", ':'), Some(vec![("a", "b:c"), ("d", "e")]));
        assert_eq!(pairs("a=b,c", '='), None);
    }
}
