//! A compiled rule: the limits of one node of a policy, and how a request got there.
//!
//! A rule knows nothing of counters; whoever enforces it names them after the rule's path.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::calendar::Calendar;
use super::cost::Cost;
use super::fault::Place;
use super::schema::OnUnknown;
use super::words::OnStoreFailure;
use crate::adaptive::Terms;
use crate::domain::{Limit, Unit};

/// The most levels of metadata, the outermost mapping counted. Decoders of protobuf refuse messages
/// of more than 100 levels; a level of JSON takes up to three, and an answer that its caller cannot
/// decode lets the request pass.
pub const MAX_METADATA_LEVELS: usize = 16;

/// The most bytes of metadata as JSON: it is sent with every answer.
pub const MAX_METADATA_BYTES: usize = 4_096;

/// The limits of one node, and its modes.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its position among all rules of the set, without gaps; may change when the policies do.
    pub index: u32,
    /// The domain it belongs to.
    pub domain: Arc<str>,
    /// Its path for people and metrics, such as `message_type=marketing/to_number`; unique in its
    /// domain, and the same as long as the path is. Values of sensitive nodes are not in it.
    pub label: String,
    /// One per entry of a matching descriptor, same order, at least one.
    pub path: Vec<PathEntry>,
    /// By entry: the number that stands for a sensitive value among those of its key, from 1; 0 for
    /// other entries.
    pub ordinals: Box<[usize]>,
    /// Its limits, all enforced; at least one. An unlimited one is alone.
    pub limits: Vec<RuleLimit>,
    /// Decided and reported, but denies nothing.
    pub shadow: bool,
    /// Counts among the quota descriptors, which deny only when all of a request's fail.
    pub quota: bool,
    /// Metrics carry the request's values.
    pub detailed_metric: bool,
    /// Its part of the answer's dynamic metadata.
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// The terms on which its limits are turned down; none: they are not.
    pub adaptive: Option<Terms>,
    /// The place at which it is written.
    pub place: Place,
}

impl Rule {
    /// The number by which handles of holds name it: the FNV-1a hash of its domain and its label.
    /// The same in every process.
    pub fn number(&self) -> u32 {
        let bytes = self.domain.bytes().chain([0]).chain(self.label.bytes());
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// The most requests in a second, by the limit that allows the fewest; none: its limits are
    /// for each of many values, or on requests at a time, and no such number is known.
    pub fn per_second(&self) -> Option<f64> {
        let is_many = |entry: &PathEntry| !matches!(entry.how, How::Exact(_)) && !entry.share;
        if self.path.iter().any(is_many) {
            return None;
        }
        let of = |limit: &RuleLimit| match &limit.kind {
            LimitKind::Unlimited => Some(f64::INFINITY),
            LimitKind::Counted { limit, .. } if limit.is_concurrency() => None,
            LimitKind::Counted { limit, .. } => {
                Some(f64::from(limit.requests()) / limit.period().as_secs_f64())
            }
        };
        let rates: Option<Vec<f64>> = self.limits.iter().map(of).collect();
        let least = rates?.into_iter().fold(f64::INFINITY, f64::min);
        (least.is_finite() && least > 0.0).then_some(least)
    }

    /// The nodes of its path as envoyproxy/ratelimit names them: `key`, or `key_value`. A number
    /// stands for a sensitive value.
    pub fn nodes(&self) -> impl Iterator<Item = String> {
        self.path.iter().zip(&self.ordinals).map(|(entry, ordinal)| match &entry.how {
            How::Any => entry.key.to_string(),
            How::Exact(_) | How::Pattern(_) if entry.sensitive => {
                format!("{}_<{ordinal}>", entry.key)
            }
            How::Exact(value) | How::Pattern(value) => format!("{}_{value}", entry.key),
        })
    }
}

/// The match of one entry of a descriptor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathEntry {
    /// The entry's key.
    pub key: Arc<str>,
    /// The value that it must have.
    pub how: How,
    /// All values of the pattern share one counter.
    pub share: bool,
    /// The values must not be shown or stored as they are.
    pub sensitive: bool,
    /// Metrics carry the value of this entry.
    pub value_to_metric: bool,
}

/// The value that an entry must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum How {
    /// This text.
    Exact(Arc<str>),
    /// Something that this text with wildcards matches.
    Pattern(Arc<str>),
    /// Anything.
    Any,
}

/// One limit of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleLimit {
    /// Its name, fit for a header: printable ASCII without quotes, backslash, comma and semicolon.
    pub name: Option<Arc<str>>,
    /// Limits of these names do not apply to a request that this limit applies to.
    pub replaces: Vec<Arc<str>>,
    /// The hits that it allows.
    pub kind: LimitKind,
}

impl RuleLimit {
    /// True if what a request takes of it is settled when the request has ended.
    pub const fn holds(&self) -> bool {
        match &self.kind {
            LimitKind::Unlimited => false,
            LimitKind::Counted { limit, .. } => limit.holds(),
        }
    }

    /// The terms of its hold; none: it takes what a request costs at once.
    pub const fn hold(&self) -> Option<&HoldTerms> {
        match &self.kind {
            LimitKind::Unlimited => None,
            LimitKind::Counted { hold, .. } => hold.as_ref(),
        }
    }

    /// The hits that a request costs it.
    pub const fn cost(&self) -> &Cost {
        match &self.kind {
            LimitKind::Unlimited => &Cost::Hits,
            LimitKind::Counted { cost, .. } => cost,
        }
    }

    /// True if it counts nothing.
    pub const fn is_unlimited(&self) -> bool {
        matches!(self.kind, LimitKind::Unlimited)
    }

    /// Its name, otherwise its numbers such as `100/MINUTE` or `100/5MINUTE`.
    pub fn label(&self) -> String {
        match (&self.name, &self.kind) {
            (Some(name), _) => name.to_string(),
            (None, LimitKind::Unlimited) => "unlimited".to_owned(),
            (None, LimitKind::Counted { limit, unit, unit_multiplier, .. }) => {
                numbers(limit, *unit, *unit_multiplier)
            }
        }
    }
}

/// The numbers of a limit as metrics have them, such as `100/MINUTE`, or `5/CONCURRENT` of a
/// concurrency limit.
fn numbers(limit: &Limit, unit: Unit, unit_multiplier: u32) -> String {
    if limit.is_concurrency() {
        return format!("{}/CONCURRENT", limit.requests());
    }
    limit_numbers(limit.requests(), unit, unit_multiplier)
}

/// The numbers of a limit as metrics have them, such as `100/MINUTE` or `100/5MINUTE`.
pub fn limit_numbers(requests: u32, unit: Unit, unit_multiplier: u32) -> String {
    let many = (unit_multiplier > 1).then(|| unit_multiplier.to_string());
    format!("{requests}/{}{}", many.unwrap_or_default(), unit.name().to_uppercase())
}

/// The hits that a limit allows.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them count")]
pub enum LimitKind {
    /// Everything, uncounted.
    Unlimited,
    /// So many requests per period.
    Counted {
        /// The limit.
        limit: Limit,
        /// The unit its period is written in.
        unit: Unit,
        /// The number of units in its period, at least 1.
        unit_multiplier: u32,
        /// The answer while the store gives none; none: that of the setting.
        on_store_failure: Option<OnStoreFailure>,
        /// Replicas may hold tokens of it.
        lease: Option<LeaseTerms>,
        /// Its fixed windows follow this calendar.
        calendar: Option<Calendar>,
        /// Its hits are estimates, on these terms; not of a concurrency limit.
        hold: Option<HoldTerms>,
        /// The hits that a request costs.
        cost: Cost,
    },
}

/// The terms on which replicas take tokens of a bucket before they spend them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseTerms {
    /// The most tokens that all of them may hold together.
    pub most: u64,
    /// The time in which they may be spent; whole microseconds.
    pub ttl: Duration,
}

/// The estimate for a request that brings none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Estimate {
    /// The hits of any request that states none.
    Asked,
    /// So many hits.
    Hits(u64),
    /// The cost that this percentage of requests stays within.
    Learned(u8),
}

/// The terms on which a limit reserves hits until their number is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HoldTerms {
    /// The time after which a hold ends by itself.
    pub ttl: Duration,
    /// The estimate for a request that brings none.
    pub estimate: Estimate,
    /// The least that is reserved.
    pub min: u64,
    /// The most that is reserved.
    pub max: u64,
    /// The cost of a request that ends without saying it.
    pub on_unknown: OnUnknown,
    /// Requests bring no handle: a peek takes the estimate, and a report of a cost ends the oldest
    /// hold.
    pub unnamed: bool,
}

impl HoldTerms {
    /// These hits, within the least and the most that is reserved.
    pub fn within(&self, hits: u64) -> u64 {
        hits.clamp(self.min, self.max.max(self.min))
    }

    /// The cost of a request that ended without saying it, and for which so many were reserved.
    pub const fn unknown_cost(&self, estimate: u64) -> u64 {
        match self.on_unknown {
            OnUnknown::Keep => estimate,
            OnUnknown::Release => 0,
            OnUnknown::Cost(hits) => hits,
        }
    }
}

/// The label of a path. `ordinals` has, for each entry, its place among the sensitive values of its
/// key.
pub(super) fn label(path: &[PathEntry], ordinals: &[usize]) -> String {
    use fmt::Write as _;

    let mut label = String::new();
    for (entry, ordinal) in path.iter().zip(ordinals) {
        let separator = if label.is_empty() { "" } else { "/" };
        // Writing to a string cannot fail.
        let _ = write!(label, "{separator}{}", Segment(&entry.key));
        let _ = match &entry.how {
            How::Any => Ok(()),
            How::Exact(_) | How::Pattern(_) if entry.sensitive => write!(label, "=<{ordinal}>"),
            How::Exact(value) | How::Pattern(value) => write!(label, "={}", Segment(value)),
        };
    }
    label
}

/// A key or value within a label: in quotes where it could be taken for more than one.
struct Segment<'a>(&'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let special = |c: char| matches!(c, '/' | '=' | '\'' | '\\' | '<') || c.is_control();
        if !self.0.contains(special) {
            return f.write_str(self.0);
        }
        f.write_str("'")?;
        for c in self.0.chars() {
            match c {
                '\'' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "{}", c.escape_unicode())?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, how: How) -> PathEntry {
        let key = key.into();
        PathEntry { key, how, share: false, sensitive: false, value_to_metric: false }
    }

    #[test]
    fn label_reads_like_a_path() {
        let path = [
            entry("message_type", How::Exact("marketing".into())),
            entry("to_number", How::Any),
            entry("path", How::Pattern("/api/*".into())),
        ];
        let text = "message_type=marketing/to_number/path='/api/*'";
        assert_eq!(label(&path, &[0, 0, 0]), text);
    }

    #[test]
    fn labels_of_different_paths_differ() {
        let exact = |key, value: &str| entry(key, How::Exact(value.into()));
        let paths = [
            vec![exact("a", "b/c")],
            vec![exact("a", "b"), entry("c", How::Any)],
            vec![exact("a", "'b/c'")],
            vec![exact("a=b", "c")],
            vec![exact("a", "b=c")],
            vec![entry("a=b", How::Any), entry("c", How::Any)],
            vec![exact("a", "<1>")],
            vec![PathEntry { sensitive: true, ..exact("a", "secret") }],
        ];
        let labels: std::collections::HashSet<_> =
            paths.iter().map(|path| label(path, &[1, 1])).collect();
        assert_eq!(labels.len(), paths.len(), "{labels:?}");
    }

    #[test]
    fn label_does_not_tell_sensitive_values() {
        let secret = PathEntry { sensitive: true, ..entry("api_key", How::Exact("s3cret".into())) };
        assert_eq!(label(&[secret], &[2]), "api_key=<2>");
    }
}
