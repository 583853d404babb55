//! Names and values as settings, and those that are headers of a request.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::read::Setting;
use super::secret::{NOT_A_SECRET, REDACTED};
use super::value::quoted;

/// Names and values, written `name=value,name2=value2`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pairs(pub BTreeMap<String, String>);

impl Setting for Pairs {
    const EXPECTED: &'static str = "pairs such as zone=a,team=edge";

    fn parse(text: &str) -> Option<Self> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
        };
        text.split(',').map(pair).collect::<Option<_>>().map(Self)
    }

    fn show(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        quoted(&pairs.collect::<Vec<_>>().join(","))
    }
}

/// Headers. Their values may be secret, and are not shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Headers(Pairs);

impl Headers {
    /// The headers of a request; their values are marked as sensitive.
    pub(crate) fn to_map(&self) -> HeaderMap {
        // All of them parse, or there were no such headers.
        let header = |(name, value): (&String, &String)| {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            Some((name.parse::<HeaderName>().ok()?, value))
        };
        self.0.0.iter().filter_map(header).collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Setting for Headers {
    const EXPECTED: &'static str = "headers such as authorization=TOKEN,x-zone=a";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let fits = |(name, value): (&String, &String)| {
            name.parse::<HeaderName>().is_ok_and(|name| !name.as_str().ends_with("-bin"))
                && HeaderValue::from_str(value).is_ok()
        };
        let pairs = Pairs::parse(text).filter(|pairs| pairs.0.iter().all(fits));
        pairs.filter(|_| text != REDACTED).map(Self)
    }

    fn show(&self) -> String {
        quoted(REDACTED)
    }

    fn hint(text: &str) -> Option<String> {
        (text == REDACTED).then(|| NOT_A_SECRET.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_names_and_values() {
        let pairs = Pairs::parse("zone=a, team = edge=1").unwrap();
        assert_eq!((&*pairs.0["zone"], &*pairs.0["team"]), ("a", "edge=1"));
        assert_eq!(pairs.show(), "\"team=edge=1,zone=a\"");
        for text in ["a", "=1", "a=1,"] {
            assert_eq!(Pairs::parse(text), None, "{text}");
        }
    }

    #[test]
    fn values_of_headers_are_not_shown() {
        let headers = Headers::parse("Authorization=hunter2").unwrap();
        assert!(!format!("{headers:?} {}", headers.show()).contains("hunter2"));
        for text in ["a b=1", "a=\u{7}", "x-bin=1", "***"] {
            assert_eq!(Headers::parse(text), None, "{text}");
        }
    }
}
