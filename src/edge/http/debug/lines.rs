//! The limits in force, as envoyproxy/ratelimit prints them: a line for each, in the order of the
//! policies. What only tollgate has follows after that.

use std::fmt::{self, Display, Write as _};

use crate::domain::{Algorithm, Charge};
use crate::policy::{LimitKind, PolicySet, Rule, RuleLimit};
use crate::telemetry::escape::escape;

/// The lines of all limits.
pub(super) fn of(policies: &PolicySet) -> String {
    let mut text = String::new();
    for rule in policies.rules() {
        let nodes: Vec<String> = rule.nodes().collect();
        let path = format!("{}.{}", rule.domain, nodes.join("."));
        for limit in &rule.limits {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {}", escape(path.as_bytes()), Line { rule, limit });
        }
    }
    text
}

struct Line<'a> {
    rule: &'a Rule,
    limit: &'a RuleLimit,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, requests) = match &self.limit.kind {
            LimitKind::Unlimited => ("UNKNOWN".to_owned(), 0),
            LimitKind::Counted { limit, unit, .. } => {
                (unit.name().to_uppercase(), limit.requests())
            }
        };
        let Rule { shadow, quota, .. } = self.rule;
        write!(f, "unit={unit} requests_per_unit={requests}")?;
        write!(f, ", shadow_mode: {shadow}, quota_mode: {quota}")?;
        match &self.limit.kind {
            LimitKind::Unlimited => f.write_str(", unlimited: true")?,
            LimitKind::Counted { limit, unit_multiplier, .. } => {
                if *unit_multiplier > 1 {
                    write!(f, ", unit_multiplier: {unit_multiplier}")?;
                }
                write!(f, ", algorithm: {}", algorithm(limit.algorithm()))?;
                match limit.charge() {
                    Charge::Admitted => {}
                    Charge::Always { .. } => f.write_str(", charge: always")?,
                    Charge::Settled { .. } => f.write_str(", charge: settled")?,
                    Charge::Held { .. } => f.write_str(", hold: true")?,
                }
            }
        }
        match &self.limit.name {
            Some(name) => write!(f, ", name: {name}"),
            None => Ok(()),
        }
    }
}

fn algorithm(algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::SlidingWindow { slots } => format!("sliding_window, slots: {slots}"),
        Algorithm::TokenBucket { burst } => format!("token_bucket, burst: {burst}"),
        Algorithm::FixedWindow => "fixed_window".to_owned(),
        Algorithm::Concurrency => "concurrency".to_owned(),
    }
}
