//! Expectations: descriptors, and the limits that they should meet.
//!
//! ```yaml
//! - domain: edge
//!   descriptor: [user=alice]      # or [{key: user, value: alice}]
//!   expect: 500/hour              # or a list; none, unlimited, blocked; "500/hour shadow"
//!   rule: user                    # optional: the label of the rule, or its FILE:LINE
//! ```
//!
//! Clients, overrides and modes set at run time are not known here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::allowance::Allowance;
use super::fault::{Faults, Place};
use super::report::Report;
use super::rule::Rule;
use super::schema::{Fields, Kind};
use super::set::PolicySet;
use super::source::Source;
use crate::yaml::{self, Data, Node};

const EXPECTATION: Kind = Kind {
    name: "an expectation",
    keys: &["domain", "descriptor", "expect", "rule"],
    elsewhere: &[(&["key", "value"], "to an item of \"descriptor\"")],
};

const ENTRY: Kind = Kind { name: "an entry", keys: &["key", "value"], elsewhere: &[] };

/// The expectations of a file; at least one.
#[derive(Debug)]
pub struct Expectations(Vec<Expectation>);

#[derive(Debug)]
struct Expectation {
    place: Place,
    domain: Arc<str>,
    entries: Vec<(Arc<str>, Arc<str>)>,
    limits: Vec<Expected>,
    rule: Option<Arc<str>>,
}

/// A limit and its mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Expected {
    allowance: Allowance,
    shadow: bool,
    quota: bool,
}

/// An expectation that is not met.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failed {
    /// The place of the expectation.
    pub place: Place,
    /// The domain of the descriptor.
    pub domain: Arc<str>,
    /// The descriptor, by key and value.
    pub entries: Vec<(Arc<str>, Arc<str>)>,
    /// The limits that were expected, and the rule if one was.
    pub expected: String,
    /// The limits that the descriptor meets, and the rule.
    pub found: String,
}

impl Expectations {
    /// Reads a file.
    ///
    /// # Errors
    /// Every fault of the file, with its place.
    pub fn read(source: &Source) -> Result<Self, Faults> {
        let mut report = Report::new(std::slice::from_ref(source));
        let mut expectations = Vec::new();
        if let Some(root) = yaml::parse(0, &source.text, report.notes()) {
            match &root.data {
                Data::List(items) if !items.is_empty() => {
                    let read = |item| Expectation::read(item, &mut report);
                    expectations = items.iter().filter_map(read).collect();
                }
                Data::List(_) => report.fault(root.at, "there are no expectations: []"),
                _ => {
                    let hint = "write - {domain: edge, descriptor: [user=alice], expect: 500/hour}";
                    let found =
                        format!("expected a list of expectations, found {}", root.describe());
                    report.fault_with(root.at, found, hint.to_owned());
                }
            }
        }
        report.finish()?;
        Ok(Self(expectations))
    }

    /// The number of expectations.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that `set` does not meet, in the order of the file.
    pub fn failures(&self, set: &PolicySet) -> Vec<Failed> {
        self.0.iter().filter_map(|expectation| expectation.failure(set)).collect()
    }
}

impl Expectation {
    /// None: it has a fault, which is reported.
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let fields = Fields::open(node, &EXPECTATION, report)?;
        for key in ["domain", "descriptor", "expect"] {
            if fields.get(key).is_none() {
                report.fault(node.at, format!("{key} is missing in an expectation"));
            }
        }
        let domain = fields.text("domain", report).good();
        let rule = fields.text("rule", report).good();
        let entries = fields.list("descriptor", report).good().map(|items| entries(items, report));
        let limits = fields.get("expect").map(|entry| limits(&entry.value, report));
        Some(Self {
            place: report.place(node.at),
            domain: domain?,
            entries: entries??,
            limits: limits??,
            rule,
        })
    }

    fn failure(&self, set: &PolicySet) -> Option<Failed> {
        let rule = match set.domain(self.domain.as_bytes()) {
            None => return Some(self.failed(unknown_domain(set))),
            Some(domain) => domain
                .find(self.entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()))),
        };
        let found = rule.map_or_else(|| vec![Expected::NONE], |rule| Expected::all(rule));
        let right_rule =
            self.rule.as_ref().is_none_or(|wanted| rule.is_some_and(|rule| is_named(rule, wanted)));
        if right_rule && is_permutation(&self.limits, &found) {
            return None;
        }
        let by = rule.map_or_else(
            || ", no rule".to_owned(),
            |rule| format!(", rule {} at {}", rule.label, rule.place),
        );
        Some(self.failed(joined(&found) + &by))
    }

    fn failed(&self, found: String) -> Failed {
        let rule = self.rule.as_ref().map(|rule| format!(", rule {rule}")).unwrap_or_default();
        Failed {
            place: self.place.clone(),
            domain: Arc::clone(&self.domain),
            entries: self.entries.clone(),
            expected: joined(&self.limits) + &rule,
            found,
        }
    }
}

fn unknown_domain(set: &PolicySet) -> String {
    let names: Vec<_> = set.domains().iter().map(|domain| domain.name().to_string()).collect();
    format!("no policy of this domain; the policies are of {}", names.join(", "))
}

/// True when `name` is the label of the rule, or its place, with or without the column.
fn is_named(rule: &Rule, name: &str) -> bool {
    let place = rule.place.to_string();
    let line = place.rsplit_once(':').map(|(line, _)| line);
    name == rule.label || name == place || Some(name) == line
}

fn is_permutation(expected: &[Expected], found: &[Expected]) -> bool {
    let mut rest = found.to_vec();
    let mut take = |wanted: &Expected| {
        rest.iter().position(|limit| limit == wanted).map(|i| rest.swap_remove(i)).is_some()
    };
    expected.iter().all(&mut take) && rest.is_empty()
}

fn joined(limits: &[Expected]) -> String {
    limits.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl Expected {
    const NONE: Self = Self { allowance: Allowance::None, shadow: false, quota: false };

    fn all(rule: &Rule) -> Vec<Self> {
        let expected = |limit| match Allowance::from(limit) {
            // Nothing to deny, so modes mean nothing.
            allowance @ (Allowance::None | Allowance::Unlimited) => {
                Self { allowance, ..Self::NONE }
            }
            allowance => Self { allowance, shadow: rule.shadow, quota: rule.quota },
        };
        rule.limits.iter().map(expected).collect()
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowance, shadow, quota } = self;
        let mode = |on: bool, word: &'static str| if on { word } else { "" };
        write!(f, "{allowance}{}{}", mode(*shadow, " shadow"), mode(*quota, " quota"))
    }
}

impl FromStr for Expected {
    type Err = String;

    /// An allowance, then `shadow` and `quota` where the rule is in that mode.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut rest, mut shadow, mut quota) = (text.trim(), false, false);
        while let Some((before, word @ ("shadow" | "quota"))) = rest.rsplit_once(' ') {
            shadow |= word == "shadow";
            quota |= word == "quota";
            rest = before.trim_end();
        }
        Ok(Self { allowance: rest.parse()?, shadow, quota })
    }
}

fn entries(items: &[Node], report: &mut Report<'_>) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let read: Vec<_> = items.iter().map(|item| entry(item, report)).collect();
    read.into_iter().collect()
}

/// `key=value`, or a mapping of both.
fn entry(node: &Node, report: &mut Report<'_>) -> Option<(Arc<str>, Arc<str>)> {
    if let Some(text) = node.text() {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        if pair.is_none() {
            let message = format!("expected key=value, found {}", node.describe());
            report.fault_with(node.at, message, "write user=alice".to_owned());
        }
        return pair.map(|(key, value)| (key.into(), value.into()));
    }
    let fields = Fields::open(node, &ENTRY, report)?;
    let key = fields.text("key", report);
    if key.good().is_none_or(|key| key.is_empty()) {
        report.fault(node.at, "key is missing or empty in an entry");
    }
    let value = fields.text("value", report);
    Some((key.good().filter(|key| !key.is_empty())?, value.or(Arc::default())?))
}

/// One limit or a list of them.
fn limits(node: &Node, report: &mut Report<'_>) -> Option<Vec<Expected>> {
    let nodes = match &node.data {
        Data::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut limit = |node: &Node| {
        let read =
            node.text().ok_or_else(|| format!("expected a limit, found {}", node.describe()));
        let read = read.and_then(|text| text.parse());
        read.map_err(|message: String| report.fault(node.at, message)).ok()
    };
    let read: Vec<_> = nodes.iter().map(&mut limit).collect();
    read.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Files, Options};
    use super::*;

    const POLICY: &str = "
domain: d
descriptors:
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 500}
  - key: user
    value: \"42\"
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 0}
  - key: user
    value: root
    rate_limit: {unlimited: true}
  - key: path
    value: /a=b
    descriptors:
      - key: user
        rate_limits:
          - {unit: second, requests_per_unit: 10}
          - {unit: day, requests_per_unit: 1000}
";

    fn check(yaml: &str) -> Vec<String> {
        let files = Files::of(vec![Source::new("p.yaml", POLICY)]);
        let set = files.compile(&Options::default()).unwrap().set;
        let expectations = Expectations::read(&Source::new("e.yaml", yaml));
        let failures = expectations.unwrap_or_else(|faults| panic!("{faults}")).failures(&set);
        let line =
            |failed: &Failed| format!("{}: {}; {}", failed.place, failed.expected, failed.found);
        failures.iter().map(line).collect()
    }

    #[test]
    fn met_expectations_say_nothing() {
        let failures = check(
            "- {domain: d, descriptor: [user=alice], expect: 500/hour, rule: user}\n\
             - {domain: d, descriptor: [user=alice], expect: 500/60minutes, rule: 'p.yaml:4'}\n\
             - {domain: d, descriptor: [{key: user, value: 42}], expect: blocked shadow}\n\
             - {domain: d, descriptor: [user=root], expect: unlimited}\n\
             - {domain: d, descriptor: ['path=/a=b'], expect: none}\n\
             - {domain: d, descriptor: ['path=/a=b', user=x], expect: [1000/day, 10/second]}\n",
        );
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn others_name_their_place_what_was_expected_and_what_is() {
        let failures = check(
            "- {domain: d, descriptor: [user=alice], expect: 100/hour}\n\
             - {domain: d, descriptor: [user=alice], expect: 500/hour, rule: user=42}\n\
             - {domain: d, descriptor: [user=42], expect: blocked}\n\
             - {domain: e, descriptor: [user=alice], expect: none}\n\
             - {domain: d, descriptor: ['path=/a=b', user=x], expect: 10/second}\n",
        );
        let expected = [
            "e.yaml:1:3: 100/hour; 500/hour, rule user at p.yaml:4:5",
            "e.yaml:2:3: 500/hour, rule user=42; 500/hour, rule user at p.yaml:4:5",
            "e.yaml:3:3: blocked; blocked shadow, rule user=42 at p.yaml:6:5",
            "e.yaml:4:3: none; no policy of this domain; the policies are of d",
            "e.yaml:5:3: 10/second; 10/second and 1000/day, rule path='/a=b'/user at p.yaml:16:9",
        ];
        assert_eq!(failures, expected);
    }

    #[test]
    fn unreadable_files_are_refused_with_the_place() {
        for (yaml, part) in [
            ("", "e.yaml:1:1: expected a list of expectations, found nothing"),
            ("[]", "e.yaml:1:1: there are no expectations"),
            ("- {domain: d, descriptor: [user], expect: none}", "e.yaml:1:28: expected key=value"),
            ("- {domain: d, descriptor: [a=b], expect: 5}", "REQUESTS/PERIOD"),
            ("- {domain: d, descriptor: [a=b]}", "e.yaml:1:3: expect is missing"),
            ("- {domain: d, descriptor: [{value: b}], expect: none}", "key is missing"),
            ("- {domain: d, descriptor: [a=b], expects: none}", "did you mean \"expect\"?"),
        ] {
            let faults = Expectations::read(&Source::new("e.yaml", yaml)).unwrap_err().to_string();
            assert!(faults.contains(part), "{yaml}: {faults}");
        }
    }
}
