//! Counts what was decided, by rule and outcome.

use super::key::{SensitiveHasher, shared_pattern};
use super::request::{Descriptor, Entry, Request};
use super::snapshot::Snapshot;
use super::status::{Decision, Outcome, Status};
use crate::domain::Verdict;
use crate::policy::{How, PathEntry, Rule};
use crate::telemetry::escape::escape;
use crate::telemetry::metrics::{Metrics, RuleMetrics, Unruled};

/// Counts `decision`, the answer to `request`.
pub(super) fn tally(
    metrics: &Metrics,
    hasher: &SensitiveHasher,
    request: &Request,
    decision: &Decision,
) {
    match decision.verdict {
        Verdict::Admit => metrics.requests_ok.inc(),
        Verdict::Deny => metrics.requests_over_limit.inc(),
    }
    for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
        if matches!(status.outcome, Outcome::NoLimit | Outcome::OutOfBounds) {
            continue;
        }
        let rule = status.rule.and_then(|i| decision.snapshot.policies.rules().get(i as usize));
        match rule {
            Some(rule) if is_detailed(rule) => {
                let label = detailed_label(rule, descriptor, hasher);
                let count = |detailed: &RuleMetrics| count(detailed, status);
                if !metrics.detailed_rule(&rule.domain, &label, count) {
                    count_rule(&decision.snapshot, rule, status);
                }
            }
            Some(rule) => count_rule(&decision.snapshot, rule, status),
            None => {
                let client = status.client.is_some();
                let unruled = if client { Unruled::Client } else { Unruled::Override };
                metrics.unruled(&request.domain, unruled, |unruled| count(unruled, status));
            }
        }
    }
}

fn count_rule(snapshot: &Snapshot, rule: &Rule, status: &Status) {
    if let Some(metrics) = snapshot.metrics(rule) {
        count(metrics, status);
    }
}

fn count(metrics: &RuleMetrics, status: &Status) {
    let counter = match (status.failed(), status.shadow) {
        (false, _) => &metrics.ok,
        (true, false) => &metrics.over_limit,
        (true, true) => &metrics.shadowed,
    };
    counter.inc();
}

/// The label of a rule that wants the values of requests in it.
///
/// `detailed_metric` shows every value, `value_to_metric` that of its node; a pattern whose values share a counter stays a
/// pattern, and a sensitive value is hashed.
fn detailed_label(rule: &Rule, descriptor: &Descriptor, hasher: &SensitiveHasher) -> String {
    let part = |(entry, path): (&Entry, &PathEntry)| {
        let shows = rule.detailed_metric || path.value_to_metric;
        match (&path.how, shared_pattern(path)) {
            (_, Some(pattern)) => format!("{}={}", path.key, pattern),
            _ if shows && path.sensitive => format!("{}={}", path.key, hasher.hash(&entry.value)),
            _ if shows => format!("{}={}", path.key, escape(&entry.value)),
            (How::Exact(value) | How::Pattern(value), _) if !path.sensitive => {
                format!("{}={value}", path.key)
            }
            _ => path.key.to_string(),
        }
    };
    descriptor.entries.iter().zip(&rule.path).map(part).collect::<Vec<_>>().join("/")
}

fn is_detailed(rule: &Rule) -> bool {
    rule.detailed_metric || rule.path.iter().any(|path| path.value_to_metric)
}
