//! Values with wildcards.

use std::sync::Arc;

/// A value with `*` in it, each standing for any bytes, also none.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: Arc<str>,
    /// The beginning of the value.
    first: Box<[u8]>,
    /// The parts that follow in this order, without overlap.
    middle: Box<[Box<[u8]>]>,
    /// The end of the value.
    last: Box<[u8]>,
}

impl Pattern {
    /// The pattern of `text`, or nothing when it has no `*`.
    pub(super) fn new(text: &Arc<str>) -> Option<Self> {
        let (first, rest) = text.split_once('*')?;
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let pieces = middle.split('*').filter(|piece| !piece.is_empty());
        Some(Self {
            text: Arc::clone(text),
            first: first.as_bytes().into(),
            middle: pieces.map(|piece| piece.as_bytes().into()).collect(),
            last: last.as_bytes().into(),
        })
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        let rest = value.strip_prefix(&*self.first).and_then(|v| v.strip_suffix(&*self.last));
        // Taking each piece at its leftmost place leaves most for those after it, so it never errs.
        rest.is_some_and(|rest| {
            self.middle.iter().try_fold(rest, |rest, piece| after(rest, piece)).is_some()
        })
    }

    /// True if every value that matches `other` matches this too. A "*" in the other's text can
    /// only be met by one of ours, which then also takes whatever stands in its place.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.matches(other.text.as_bytes())
    }

    /// True if every value matches.
    pub(super) fn is_any(&self) -> bool {
        self.first.is_empty() && self.middle.is_empty() && self.last.is_empty()
    }

    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }
}

/// The rest of `text` after the first `piece`, which is not empty.
fn after<'a>(text: &'a [u8], piece: &[u8]) -> Option<&'a [u8]> {
    let start = text.windows(piece.len()).position(|window| window == piece)?;
    text.get(start + piece.len()..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(&pattern.into()).unwrap().matches(value.as_bytes())
    }

    /// By definition: a star takes nothing, or one more byte.
    fn oracle(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                oracle(rest, value) || (!value.is_empty() && oracle(pattern, &value[1..]))
            }
            ([p, pattern @ ..], [v, value @ ..]) => p == v && oracle(pattern, value),
            _ => false,
        }
    }

    #[test]
    fn star_stands_for_any_bytes_also_none() {
        for (pattern, value, expected) in [
            ("*", "", true),
            ("foo*", "foo", true),
            ("foo*", "fo", false),
            ("*foo", "a foo", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("/api/*/action", "/api/x/y/action", true),
            ("/api/*/action", "/api/action", false),
            ("a*bc*bc*d", "abcd", false),
            ("a*bc*bc*d", "abcbcd", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
        assert!(Pattern::new(&"plain".into()).is_none());
        assert!(Pattern::new(&"**".into()).unwrap().is_any());
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab*]{0,6}\\*[ab*]{0,6}", value in "[ab]{0,12}") {
            prop_assert_eq!(matches(&pattern, &value), oracle(pattern.as_bytes(), value.as_bytes()));
        }

        #[test]
        fn covered_pattern_matches_nothing_else(
            wide in "[ab*]{0,4}\\*[ab*]{0,4}", narrow in "[ab*]{0,4}\\*[ab*]{0,4}", value in "[ab]{0,8}"
        ) {
            let [wide, narrow] = [wide, narrow].map(|p| Pattern::new(&p.into()).unwrap());
            if wide.covers(&narrow) && narrow.matches(value.as_bytes()) {
                prop_assert!(wide.matches(value.as_bytes()));
            }
        }
    }
}
