//! The counts of decisions, read for people.

use super::Metrics;
use super::decisions::DecisionLabels;

/// The decisions of one series.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleCounts {
    /// The domain.
    pub domain: String,
    /// The rule.
    pub rule: String,
    /// The limit.
    pub limit: String,
    /// The outcome.
    pub outcome: &'static str,
    /// Descriptors decided.
    pub decisions: u64,
    /// Their hits.
    pub hits: u64,
}

impl Metrics {
    /// The counts of all series, in no order.
    pub fn rule_counts(&self) -> Vec<RuleCounts> {
        let mut counts = Vec::new();
        self.decisions.each(|labels, decisions, hits| {
            let DecisionLabels { domain, rule, limit, outcome } = labels.clone();
            counts.push(RuleCounts { domain, rule, limit, outcome, decisions, hits });
        });
        counts
    }
}
