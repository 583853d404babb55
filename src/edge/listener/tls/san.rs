//! Patterns for the alternative names of client certificates.

use std::collections::BTreeMap;

use crate::settings::{Reader, Setting, quoted};
use crate::tls::certificate::Names;

/// Alternative names, any of which will do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SanPatterns(Vec<SanPattern>);

/// A name, with or without text that may be anything.
#[derive(Clone, Debug, Eq, PartialEq)]
enum SanPattern {
    Exact(String),
    /// Any text, then this.
    EndsWith(String),
    /// This, then any text.
    StartsWith(String),
}

impl SanPatterns {
    /// True if no name is asked for.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if one of `names` fits one of the patterns.
    pub(crate) fn fit(&self, names: &Names) -> bool {
        names.iter().any(|name| self.fits(name))
    }

    /// True if `name` fits one of the patterns.
    pub(crate) fn fits(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.fits(name))
    }
}

impl SanPattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let clean = |rest: &str| !rest.is_empty() && !rest.contains('*');
        let pattern = if let Some(rest) = text.strip_prefix('*') {
            Self::EndsWith(folded(rest))
        } else if let Some(rest) = text.strip_suffix('*') {
            Self::StartsWith(folded(rest))
        } else {
            Self::Exact(folded(text))
        };
        let (Self::Exact(rest) | Self::EndsWith(rest) | Self::StartsWith(rest)) = &pattern;
        let sound = clean(rest) && !rest.contains(|c: char| c.is_whitespace() || c.is_control());
        sound.then_some(pattern)
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            // Of `*.example` the name `.example` is none.
            Self::EndsWith(end) => name.len() > end.len() && name.ends_with(end.as_str()),
            Self::StartsWith(start) => name.len() > start.len() && name.starts_with(start.as_str()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Exact(text) => quoted(text),
            Self::EndsWith(text) => quoted(&format!("*{text}")),
            Self::StartsWith(text) => quoted(&format!("{text}*")),
        }
    }
}

/// The names of hosts in lower case, as certificates are read; a URI as it is.
fn folded(text: &str) -> String {
    if text.contains(['/', '@', ':']) { text.to_owned() } else { text.to_ascii_lowercase() }
}

impl Setting for SanPatterns {
    const EXPECTED: &'static str =
        "a list of names such as [spiffe://mesh/ns/edge/*, ops.example], `*` at one end only";
    const LIST: bool = true;

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(SanPattern::parse).collect::<Option<Vec<_>>>().map(Self)
    }

    fn show(&self) -> String {
        let items = self.0.iter().map(SanPattern::show).collect::<Vec<_>>();
        format!("[{}]", items.join(", "))
    }

    fn unset() -> Option<Self> {
        Some(Self::default())
    }
}

/// Patterns by domain.
impl Setting for BTreeMap<String, SanPatterns> {
    const EXPECTED: &'static str = "a mapping from domain to names";
    const MAPPING: bool = true;

    fn parse(text: &str) -> Option<Self> {
        text.is_empty().then(Self::new)
    }

    fn show(&self) -> String {
        let pair = |(domain, names): (&String, &SanPatterns)| {
            let items = names.0.iter().map(|name| name.show().trim_matches('"').to_owned());
            let names = items.collect::<Vec<_>>().join(",");
            format!("{}: {}", quoted(domain), quoted(&names))
        };
        format!("{{{}}}", self.iter().map(pair).collect::<Vec<_>>().join(", "))
    }

    fn read(reader: &mut Reader, section: &str, name: &str, _default: &str) -> Option<Self> {
        reader.mapping(section, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_exactly_or_but_for_the_end_with_a_star() {
        let table = [
            ("spiffe://mesh/ns/edge/sa/envoy", "spiffe://mesh/ns/edge/sa/envoy", true),
            ("spiffe://mesh/ns/edge/*", "spiffe://mesh/ns/edge/sa/envoy", true),
            ("spiffe://mesh/ns/edge/*", "spiffe://mesh/ns/edge/", false),
            ("spiffe://mesh/ns/edge/*", "spiffe://mesh/ns/edges/sa/x", false),
            ("spiffe://mesh/ns/Edge/*", "spiffe://mesh/ns/edge/sa/x", false),
            ("*.edge.example", "a.edge.example", true),
            ("*.EDGE.example", "a.edge.example", true),
            ("*.edge.example", "edge.example", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("other, ops@example.com", "ops@example.com", true),
        ];
        for (patterns, name, fits) in table {
            let patterns = SanPatterns::parse(patterns).unwrap();
            assert_eq!(patterns.fit(&Names::new(&[name])), fits, "{patterns:?} {name}");
        }
        assert!(!SanPatterns::parse("x").unwrap().fit(&Names::default()));
        for bad in ["", "*", "a*b", "*a*", "a b", "a,,b"] {
            assert_eq!(SanPatterns::parse(bad), None, "{bad}");
        }
    }
}
